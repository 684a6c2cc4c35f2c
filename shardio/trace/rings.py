"""Takes trace records out of a fabric's rings, and tells its clients and owners what to write there.

Facts. A writer never waits, so a ring that is not looked at for long loses its oldest records. The counter of
the processor that records are timed by runs at one rate on all CPUs; the fabric has measured it.

Consequences. `collect` copies what is there, and what it missed is counted. Ticks become nanoseconds of
CLOCK_MONOTONIC by one pair of readings and the fabric's rate: exact between records, good to about 0.1 %
against other clocks.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from shardio._core import ffi, lib
from shardio.fabric import Fabric

ROOM = 4096
"""Records copied at a time."""
NO_RANGE = lib.SIO_MAX_RANGES
"""The number that stands for what belongs to no range."""
RECORD_BYTES = ffi.sizeof("struct sio_trace_record")
_RECORD = struct.Struct("<6QI3H4B2x")


class Raw(NamedTuple):
    """A record as it is in a ring (`struct sio_trace_record` of native/layout.h); times in ticks."""

    stamp: int
    begin: int
    end: int
    address: int
    value: int
    message: int
    range: int
    vcpu: int
    shard: int
    elements: int
    kind: int
    size: int
    flags: int
    outcome: int


def decode(frame: bytes) -> Iterator[Raw]:
    """The records of what `Rings.collect` gave."""
    return map(Raw._make, _RECORD.iter_unpack(frame))


class Clock:
    """Ticks as nanoseconds of CLOCK_MONOTONIC."""

    def __init__(self, fabric: Fabric) -> None:
        # The closest pair of a few: whoever is interrupted between two readings reads too late a time.
        readings = []
        for _ in range(8):
            before = lib.sio_ticks()
            now = time.monotonic_ns()
            after = lib.sio_ticks()
            readings.append((after - before, (before + after) // 2, now))
        _, self._ticks, self._ns = min(readings)
        self._rate = int(fabric.view.ticks_to_ns_32)

    def ns(self, ticks: int) -> int:
        """The time of a reading of the counter."""
        return self._ns + ((ticks - self._ticks) * self._rate >> 32)


class Rings:
    """The rings of one fabric. `lost`: records that nobody will see, by row: the vCPUs', then the shards'.

    Raises `FabricError` where there is no memory for them.
    """

    def __init__(self, fabric: Fabric) -> None:
        fabric.back_trace()
        self._fabric = fabric
        self._view: Any = fabric.view  # mapped for as long as this is held
        self.clock = Clock(fabric)
        self.began = int(lib.sio_ticks())
        """The tick from which on records are this trace's: what is written after a reply may come late."""
        self.rows = fabric.vcpus + fabric.shards
        self.lost = [0] * self.rows
        self._tails = ffi.new("uint64_t[]", self.rows)
        self._unfinished = ffi.new("uint64_t[]", self.rows)
        self._lost = ffi.new("uint64_t[]", self.rows)
        self._wanted: list[int] = []
        self._buffer = ffi.new("struct sio_trace_record[]", ROOM)
        for row in range(self.rows):  # what an earlier trace has left is not this one's
            self._tails[row] = self._view.trace_rings[row].head

    def want(self, ranges: Iterable[int] | None) -> None:
        """Have these range indices traced, `NO_RANGE` for what belongs to none; None: all."""
        wanted = self._view.trace.wanted
        words = [0 if ranges is not None else 2**64 - 1] * len(wanted)
        for index in ranges or ():
            words[index // 64] |= 1 << index % 64
        if words != self._wanted:
            self._wanted = words
            for number, word in enumerate(words):
                wanted[number] = word

    def switch(self, on: bool, clients: Iterable[Any]) -> None:
        """Have the shards and these clients (`struct sio_client *`) write records, or not."""
        for shard in range(self._fabric.shards):
            self._view.shard[shard].traced = on
        for client in clients:
            client.tracing = on

    def collect(self) -> bytes:
        """What has come since the last time, ring after ring: for `decode`."""
        room, found = ffi.buffer(self._buffer), []
        for row in range(self.rows):
            ring, tail = self._view.trace_rings + row, self._tails + row
            # A ring's length at most: a busy writer must not keep the others from their turn.
            for _ in range(lib.SIO_TRACE_SLOTS // ROOM):
                n = lib.sio_trace_collect(
                    ring, tail, self._unfinished + row, self._buffer, ROOM, self._lost + row
                )
                if n:
                    found.append(room[: n * RECORD_BYTES])
                if n < ROOM:
                    break
            self.lost[row] = self._lost[row]
        return b"".join(found)
