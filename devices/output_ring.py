"""`OutputRing`: output in memory that outlives its shard; each byte reaches the host's file once.

Facts. A shard may be killed between a write(2) and the note of it. sendfile(2) moves the offset of the file
that it reads by what it wrote, in the same system call, and the offset belongs to the open file, which the
VMM holds too.

Consequences. How much has left is that offset, and nobody else's note; how much has come (`tail`) is the
device's to save, together with whatever else its access changes.
"""

from __future__ import annotations

import os
from typing import Any

from shardio.devices.byte_fd import ByteFd


class OutputRing:
    """A part of a device's persistent area: `size` bytes, a power of two, of which one stays free.

    `head` and `tail` count the bytes that have left and come.
    """

    def __init__(self, store: Any, offset: int, size: int, tail: int = 0) -> None:
        """`store`: `host.persistent`; `offset`: where in its area; `tail`: what was saved last of it."""
        self.memory: memoryview = store.area[offset : offset + size]
        self._fd: int = store.fd
        self._at: int = store.area_at + offset
        self._size = size
        place = os.lseek(self._fd, 0, os.SEEK_CUR) - self._at
        if place < 0:  # nobody has used it
            place = os.lseek(self._fd, self._at, os.SEEK_SET) - self._at
        self.tail = tail
        self.head: int = tail - (tail - place) % size

    @property
    def pending(self) -> int:
        """Bytes that have not left."""
        return self.tail - self.head

    @property
    def room(self) -> int:
        """Bytes that may come."""
        return self._size - 1 - self.pending

    def put(self, data: bytes) -> int:
        """Take as much as there is room for, and tell how much; it counts once `tail` is saved."""
        taken = data[: self.room]
        at = self.tail % self._size
        first = min(len(taken), self._size - at)
        self.memory[at : at + first] = taken[:first]
        self.memory[: len(taken) - first] = taken[first:]
        self.tail += len(taken)
        return len(taken)

    def send(self, file: ByteFd | None, upto: int) -> int:
        """Let what came before `upto` leave for the file (None: nowhere), as far as it takes it: how much
        that was. Raises OSError for what the file says, but EAGAIN.
        """
        sent = 0
        while (left := upto - self.head) > 0:
            at = self.head % self._size
            if at == 0:
                os.lseek(self._fd, self._at, os.SEEK_SET)
            count = min(left, self._size - at)
            if file is None:
                os.lseek(self._fd, count, os.SEEK_CUR)
            else:
                count = file.send_from(self._fd, count)
            self.head += count
            sent += count
            if not count:
                break
        return sent

    def skip(self, count: int) -> None:
        """Forget the oldest bytes."""
        while count > 0:
            count -= self.send(None, self.head + min(count, self._size - self.head % self._size))

    def close(self) -> None:
        """Let the memory go."""
        self.memory.release()
