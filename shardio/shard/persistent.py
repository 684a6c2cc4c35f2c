"""`Persistent`: a device's state in shared memory, which its successor finds after a kill at any instruction.

Facts. A store of eight aligned bytes is whole or absent. A request that a dead shard had taken is answered
anew by its successor under the policy "replay", and the shard's journal names it. An access has one effect
on the device's state, and one answer.

Consequences. There are two copies. What an access makes of the state goes into the one that does not count,
with the access's name and its answer, and one store makes it count. A successor that is asked for the access
which it finds there gives the answer and changes nothing: with "replay" such a device sees each access
exactly once. A string of accesses has one name for all of its elements: it is repeated from its beginning.

The memory is a sealed memfd: `count`, then two copies of `journal`, `calls`, `answer`, `length`, state.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable
from typing import Any

from shardio.errors import DeviceStateError

_WORD = 8
_HEADER = 64
_JOURNAL, _CALLS, _ANSWER, _LENGTH, _STATE = 0, 1, 2, 3, 4
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def persistent_memory(size: int) -> int:
    """The descriptor, the caller's, of memory for a state of at most `size` bytes. Raises OSError."""
    fd = os.memfd_create("shardio-state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(fd, 0, _HEADER + 2 * _copy_size(size))
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Persistent:
    """The memory at `fd` (which stays the caller's), of states of at most `size` bytes. `journal()` names the
    access in hand, or the last one.
    """

    def __init__(self, fd: int, size: int, journal: Callable[[], int]) -> None:
        self._size = size
        self._journal = journal
        self._map = mmap.mmap(fd, _HEADER + 2 * _copy_size(size))
        self._bytes = memoryview(self._map)
        self._words = self._bytes.cast("Q")
        self._count = self._words[0]
        self._inside = self._staged = False
        here = self._place(self._count)
        self._repeat = self._words[here + _JOURNAL] if self._words[here + _CALLS] == 1 else 0
        self._answer = self._words[here + _ANSWER]
        length = min(self._words[here + _LENGTH], size)
        start = _WORD * (here + _STATE)
        self.state = bytes(self._bytes[start : start + length]) if self._count else None
        """What was saved last when this owner began; None where nothing was."""

    def save(self, state: bytes) -> None:
        """Keep `state`: from the end of the access in hand on, or, outside of one, from now on.

        Raises `DeviceStateError` for more than the device declared.
        """
        if len(state) > self._size:
            raise DeviceStateError(len(state), self._size)
        there = self._place(self._count + 1)
        self._words[there + _LENGTH] = len(state)
        start = _WORD * (there + _STATE)
        self._bytes[start : start + len(state)] = state
        self._staged = True
        if not self._inside:
            # A request that the predecessor made may be still to be answered: its name and answer stay.
            here = self._place(self._count)
            self._commit(*self._words[here : here + _LENGTH])

    def guard(self, device: Any, space: str) -> Guard:
        """The device's handlers for a space ("pio", "mmio"), each access an effect and an answer at once."""
        return Guard(self, getattr(device, f"{space}_read"), getattr(device, f"{space}_write"), space)

    def begin(self) -> int | None:
        """An access begins. Its answer where a predecessor has made it: it is not to be made again."""
        self._inside, self._staged = True, False
        if not self._repeat:
            return None
        repeated = self._repeat == self._journal()
        if repeated:
            self._repeat, self._inside = 0, False
        return self._answer if repeated else None

    def end(self, answer: int) -> None:
        """The access ends; `answer`: what was read, 0 of a write."""
        self._inside = False
        if self._staged:
            journal, here = self._journal(), self._place(self._count)
            again = self._words[here + _JOURNAL] == journal
            self._commit(journal, self._words[here + _CALLS] + 1 if again else 1, answer)

    def close(self) -> None:
        """Let the memory go. Idempotent."""
        self._words.release()
        self._bytes.release()
        self._map.close()

    def _commit(self, journal: int, calls: int, answer: int) -> None:
        self._staged = False
        there, words = self._place(self._count + 1), self._words
        words[there + _JOURNAL], words[there + _CALLS], words[there + _ANSWER] = journal, calls, answer
        self._count += 1
        words[0] = self._count

    def _place(self, count: int) -> int:
        """Where the copy that counts after `count` saves begins, in words."""
        return (_HEADER + (count & 1) * _copy_size(self._size)) // _WORD


class Guard:
    """A device's view handlers between `Persistent.begin` and `Persistent.end`."""

    def __init__(self, store: Persistent, read: Any, write: Any, space: str) -> None:
        def guarded_read(base: int, offset: int, data: memoryview) -> None:
            answer = store.begin()
            if answer is not None:
                data[:] = answer.to_bytes(len(data), "little")
                return
            try:
                read(base, offset, data)
            finally:
                store.end(int.from_bytes(data, "little"))

        def guarded_write(base: int, offset: int, data: memoryview) -> None:
            if store.begin() is not None:
                return
            try:
                write(base, offset, data)
            finally:
                store.end(0)

        setattr(self, f"{space}_read", guarded_read)
        setattr(self, f"{space}_write", guarded_write)


def _copy_size(size: int) -> int:
    return (_STATE * _WORD + size + _WORD - 1) // _WORD * _WORD
