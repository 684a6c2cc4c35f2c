"""A device that notes when it is asked, where `bench.recovery` sees it: also after its process was killed."""

from __future__ import annotations

import mmap
import struct
import time

from shardio import MutDeviceMmio

_WORD = struct.Struct("=Q")
MADE, FIRST, LAST, LONGEST = range(0, 32, 8)


class Page:
    """Four words that every instance of the device shares with the one who measures."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def __getitem__(self, word: int) -> int:
        return int(_WORD.unpack_from(self._map, word)[0])

    def __setitem__(self, word: int, value: int) -> None:
        _WORD.pack_into(self._map, word, value)

    def close(self) -> None:
        """Unmap."""
        self._map.close()


class Witness(MutDeviceMmio):
    """Notes when it is asked, in nanoseconds of CLOCK_MONOTONIC."""

    mmio_size = 0x1000

    def __init__(self, path: str) -> None:
        self.page = Page(path)
        self.page[FIRST] = self.page[LAST] = 0
        self.page[MADE] += 1

    def read(self, offset: int, size: int) -> int:
        """The note is taken as late as can be: the answer follows."""
        page, now = self.page, time.monotonic_ns()
        if page[FIRST] == 0:
            page[FIRST] = now
        elif now - page[LAST] > page[LONGEST]:
            page[LONGEST] = now - page[LAST]
        page[LAST] = now
        return 0
