"""Timed blocks: the loops of `shardio._measure`, whose ticks become nanoseconds here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from shardio._measure import ffi, lib
from shardio.bench.errors import BenchError
from shardio.fabric import Fabric

SAMPLE_EVERY = 8
"""One operation in this many is timed by itself, for the percentiles. A power of two."""
STOLEN_NS = 200_000
"""A gap this long between samples is the scheduler's doing: no part of the path takes as long, a time slice
does.
"""
PATIENCE = 40
"""How often a disturbed block is measured again before it counts as it is."""

# What a block points to lives as long as the block.
_alive: WeakKeyDictionary[Any, tuple[Any, Any]] = WeakKeyDictionary()


class Block(NamedTuple):
    """A timed block: `ns` an operation on average over the whole of it, and single operations in `samples`
    (ns). `stolen`: another program had a CPU for part of it.
    """

    ns: float
    samples: list[float]
    stolen: bool


class Floor(NamedTuple):
    """The bare ping-pong: a block of each loop, with a `pause` a poll and without. The quicker one is the
    floor.
    """

    pause: Block
    bare: Block

    @property
    def ns(self) -> tuple[float, float]:
        """Nanoseconds of a round trip by each loop."""
        return self.pause.ns, self.bare.ns


@cache
def tick_ns() -> float:
    """Nanoseconds of a tick of the clock that blocks are timed by."""
    with Fabric.create(vcpus=1, shards=1, ranges=1) as fabric:
        return float(fabric.view.ticks_to_ns_32) / 2**32


def patience_ticks() -> int:
    """How long a loop of the floor waits for its peer, in ticks."""
    return int(lib.SIO_MEASURE_PATIENCE_NS / tick_ns())


def ping(line: Any, pause: int, *counts: int) -> Block:
    """Blocks of so many pings of the floor, which the far side answers; see `whole`."""
    wait, why = patience_ticks(), ("nobody answers pings", "run on a machine that is not overloaded")
    return whole(lambda block: int(lib.sio_measure_ping(line, block, wait, pause)), counts, *why)


def whole(run: Callable[[Any], int], counts: Sequence[int], what: str, hint: str) -> Block:
    """The last of some blocks that `run` makes, and gives the ticks of. Raises `BenchError` where one is cut
    short.
    """
    for count in counts:
        block = new_block(count)
        ticks = run(block)
        if block.done != count:
            raise BenchError(what, hint)
    return timed(block, ticks)


def new_block(n: int, addresses: Any = (0,), **fields: int) -> Any:
    """A `struct sio_measure_block` for `n` operations at `addresses`, taken in turn, and its samples."""
    samples = ffi.new("uint64_t[]", n // SAMPLE_EVERY + 1)
    array = address_array(addresses) if isinstance(addresses, list | tuple) else addresses
    given = {"n": n, "every": SAMPLE_EVERY, "samples": samples, "addresses": array, **fields}
    block = ffi.new("struct sio_measure_block *", {**given, "address_mask": len(array) - 1})
    _alive[block] = (samples, array)
    return block


def samples_of(block: Any) -> list[float]:
    """Its single operations, in nanoseconds."""
    return [value * tick_ns() for value in ffi.unpack(block.samples, block.sampled)]


def timed(block: Any, ticks: int) -> Block:
    """What a block that took `ticks` gave."""
    return Block(ticks * tick_ns() / block.n, samples_of(block), block.gap * tick_ns() > STOLEN_NS)


def address_array(addresses: Iterable[int]) -> Any:
    """Addresses for a block. Raises `BenchError` unless their number is a power of two."""
    values = list(addresses)
    if len(values) & (len(values) - 1) or not values:
        raise BenchError(f"{len(values)} addresses", "give a power of two of them")
    return ffi.new("uint64_t[]", values)


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """This thread runs there, and afterwards where it ran before."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
