"""The device that notes when it is asked, for `recovery`. It is a module of its own, since a shard that
starts in a dead one's place imports it meanwhile: it imports next to nothing.
"""

from __future__ import annotations

import mmap
import time

from shardio.device import MutDeviceMmio

MADE, FIRST, LAST, LONGEST = range(4)


class Page:
    """Four words that every instance of the device shares with the one who measures."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.words = memoryview(self._map).cast("Q")

    def close(self) -> None:
        """Unmap."""
        self.words.release()
        self._map.close()


class Witness(MutDeviceMmio):
    """Notes when it is asked, in nanoseconds of CLOCK_MONOTONIC: seen after its process was killed too."""

    mmio_size = 0x1000

    def __init__(self, path: str) -> None:
        self.page = Page(path).words
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
