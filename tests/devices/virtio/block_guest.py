"""A guest's side of a virtio disk."""

from __future__ import annotations

import errno
import os
import struct
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from shardio.devices.virtio import VirtioMmioBlock
from tests.devices.virtio.guest import MmioGuest, started

IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13
OK, IOERR, UNSUPP = 0, 1, 2
SECTORS = 64
"""Of the image that the fixture makes."""


class Disk(MmioGuest):
    """A driver that makes one request at a time."""

    async def request(
        self, kind: int, sector: int = 0, data: bytes = b"", expect: int = 0, *, queue: int = 0
    ) -> tuple[int, bytes]:
        """(status, data that was read)."""
        header = struct.pack("<IIQ", kind, 0, sector)
        self.queues[queue].add([header, data] if data else [header], [expect, 1] if expect else [1])
        self.notify(queue)
        [(_, _, content)] = await self.collected(queue, 1)
        return content[-1], content[:-1]


def refuse_to_wait(arguments: tuple[Any, ...]) -> None:
    """What a disk does whose content is not in memory: raises BlockingIOError where preadv(2) was told
    RWF_NOWAIT.
    """
    if arguments[3:] == (os.RWF_NOWAIT,):
        raise BlockingIOError(errno.EAGAIN, "not in the page cache")


def disk(path: Path, *, without: int = 0, size: int = 8, **options: Any) -> AbstractAsyncContextManager[Disk]:
    """The driver of a disk with these options; `without` and `size` as `MmioGuest.start` takes them."""
    return started(VirtioMmioBlock(str(path), **options), Disk, without=without, size=size)
