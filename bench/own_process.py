"""The other end of the scale of exits: the software CPU, which leaves its guest in tens of nanoseconds. Its
floor is the same guest in a Unicorn of the benchmark's own, whose `IN` is answered in its own process, by a
hook in C (`native/measure`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from shardio._measure import ffi, lib
from shardio.bench.blocks import PATIENCE, Block, new_block, timed
from shardio.bench.errors import BenchError
from shardio.bench.inloop import settle
from shardio.closing import Closing
from shardio.soft.library import library

EXITS = 20_000
"""A block: a millisecond or so."""


class OwnProcess(Closing):
    """A guest without devices, as `inloop.InLoop` is for KVM. Raises `HostError` without Unicorn."""

    def __init__(self, code: bytes, _mode: str, cpus: Sequence[int] = (-1,)) -> None:
        self._library = ffi.new("char[]", str(library()).encode())
        self._code = ffi.new("char[]", code)
        self._thread = ThreadPoolExecutor(1, initializer=settle, initargs=(cpus[0],))

    def exit_ns(self) -> float:
        """Nanoseconds of an exit; a block during which the thread lost its CPU is measured again."""
        for _ in range(PATIENCE):
            block = self._thread.submit(self._block).result()
            if not block.stolen:
                break
        return block.ns

    def _block(self) -> Block:
        block = new_block(EXITS)
        ticks = lib.sio_measure_software(self._library, self._code, len(self._code) - 1, block)
        if block.done != EXITS:
            raise BenchError("the guest does not run in Unicorn", "see `shardio doctor`")
        return timed(block, ticks)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()
