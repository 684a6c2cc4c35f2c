"""`Persistent`: a device's state in shared memory, which its successor finds after a kill at any instruction.

Facts. A store of eight aligned bytes is whole or absent. A request that a dead shard had taken is answered
anew by its successor under the policy "replay", and the shard's journal names it; of a string of accesses
the successor does those that were not done. An access has one effect on the device's state, and one answer.

Consequences. There are two copies. What an access makes of the state goes into the one that does not count,
with the access's name and its answer, and one store makes it count. A successor that is asked for the access
which it finds there gives the answer and changes nothing: with "replay" such a device sees each access
exactly once.

Where encoding a state for each access would cost too much, a device notes one number in a `Mark`
(shardio.mark) instead, or keeps data in `area`, plain memory that no access commits. `keeper` is for the many
devices whose state is what `snapshot` gives: it saves that after each access that has changed it.

The memory is a sealed memfd: `count`, then two copies of `request`, `element` (both name an access),
`answer`, `length`, state, and the area.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import operator
import os
from collections.abc import Callable
from typing import Any

import msgspec

from shardio.device import HandlerForm, handler_form, view_handlers
from shardio.errors import DeviceStateError
from shardio.mark import Name, same_vcpu

_encode = msgspec.msgpack.Encoder().encode
_WORD = 8
_HEADER = 64
_REQUEST, _ELEMENT, _ANSWER, _LENGTH, _STATE = 0, 1, 2, 3, 4
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def persistent_memory(size: int, area: int = 0) -> int:
    """The descriptor, the caller's, of memory for a state of at most `size` bytes and an area of `area`.

    Raises OSError.
    """
    fd = os.memfd_create("shardio-state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(fd, 0, _HEADER + 2 * _copy_size(size) + area)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Persistent:
    """The memory at `fd` (which stays the caller's), of states of at most `size` bytes and an area of `area`
    (a multiple of 8). `journal()` names the access in hand, or the last one, by request and element;
    `control_at` is where the core reads that, 0: nowhere.
    """

    def __init__(
        self, fd: int, size: int, journal: Callable[[], Name], *, area: int = 0, control_at: int = 0
    ) -> None:
        self._size = size
        self.journal = journal
        self.control_at = control_at
        self.fd = os.dup(fd)
        """The same open file: its offset, which the kernel keeps, is one for all owners."""
        self.area_at = _HEADER + 2 * _copy_size(size)
        """Where the area begins in the file."""
        self._map = mmap.mmap(fd, self.area_at + area)
        self._bytes = memoryview(self._map)
        self.area = self._bytes[self.area_at :]
        """Writable memory that a successor finds as it is, at whatever instruction its predecessor died."""
        self._words = self._bytes[: self.area_at].cast("Q")
        self._count = self._words[0]
        self._inside = self._staged = False
        here = self._place(self._count)
        self._repeat: Name | None = None
        if self._count:
            self._repeat = self._words[here + _REQUEST], self._words[here + _ELEMENT]
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

    def guard(self, device: Any, space: str, keep: Callable[[], None] | None = None) -> Any:
        """The device's handlers for a space ("pio", "mmio"), each access an effect and an answer at once.
        `keep` is called before the end of each.

        A device that calls `begin` and `end` itself says so by an attribute `guards_itself`; one in register
        form that needs neither for some registers names their offsets as `unguarded`, a frozenset, or says by
        `reads_change = False` that no read changes it.
        """
        if getattr(device, "guards_itself", False):
            return device
        forms = {handler_form(device, space, write=write) for write in (False, True)}
        if forms == {HandlerForm.REGISTER}:
            return RegisterGuard(self, device, keep)
        return Guard(self, view_handlers(device, space), space, keep)

    def keeper(self, device: Any) -> Callable[[], None]:
        """Restores the device to what a predecessor saved, and gives what saves its state if that has
        changed. The state is what `kept` gives where it has that method, else `snapshot`; its class says as
        `state_type` which Struct that is.
        """
        last, state_of = self.state, getattr(device, "kept", device.snapshot)
        if last is not None:
            device.restore(msgspec.msgpack.decode(last, type=device.state_type))

        def keep() -> None:
            nonlocal last
            state = _encode(state_of())
            if state != last:
                self.save(state)
                last = state

        return keep

    def begin(self) -> int | None:
        """An access begins. Its answer where a predecessor has made it: it is not to be made again."""
        self._inside, self._staged = True, False
        if self._repeat is None or not same_vcpu(name := self.journal(), self._repeat):
            return None
        # What this vCPU asks first is that access again, or there will be no repetition of it.
        repeated, self._repeat = self._repeat == name, None
        self._inside = not repeated
        return self._answer if repeated else None

    def end(self, answer: int) -> None:
        """The access ends; `answer`: what was read, 0 of a write."""
        self._inside = False
        if self._staged:
            self._commit(*self.journal(), answer)

    def close(self) -> None:
        """Let the memory go. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self._words.release()
        self.area.release()
        self._bytes.release()
        with contextlib.suppress(BufferError):  # a device kept a view: the memory stays as long as that
            self._map.close()

    def _commit(self, request: int, element: int, answer: int) -> None:
        self._staged = False
        there, words = self._place(self._count + 1), self._words
        words[there + _REQUEST], words[there + _ELEMENT], words[there + _ANSWER] = request, element, answer
        self._count += 1
        words[0] = self._count

    def _place(self, count: int) -> int:
        """Where the copy that counts after `count` saves begins, in words."""
        return (_HEADER + (count & 1) * _copy_size(self._size)) // _WORD


class Guard:
    """A device's view handlers between `Persistent.begin` and `Persistent.end`."""

    def __init__(
        self, store: Persistent, device: Any, space: str, keep: Callable[[], None] | None = None
    ) -> None:
        read, write = getattr(device, f"{space}_read"), getattr(device, f"{space}_write")
        keep = keep or _nothing

        def guarded_read(base: int, offset: int, data: memoryview) -> None:
            answer = store.begin()
            if answer is not None:
                data[:] = answer.to_bytes(len(data), "little")
                return
            try:
                read(base, offset, data)
                keep()
            finally:
                store.end(int.from_bytes(data, "little"))

        def guarded_write(base: int, offset: int, data: memoryview) -> None:
            if store.begin() is not None:
                return
            try:
                write(base, offset, data)
                keep()
            finally:
                store.end(0)

        setattr(self, f"{space}_read", guarded_read)
        setattr(self, f"{space}_write", guarded_write)


class RegisterGuard:
    """The same, of a device in register form."""

    def __init__(self, store: Persistent, device: Any, keep: Callable[[], None] | None) -> None:
        self._store = store
        self._read, self._write = device.read, device.write
        self._keep = keep or _nothing
        self._unguarded: frozenset[int] = getattr(device, "unguarded", frozenset())
        if not getattr(device, "reads_change", True):
            self.read = device.read  # type: ignore[method-assign]

    def read(self, offset: int, size: int) -> int:
        """The answer to this access, whether it is made now or was before."""
        if offset in self._unguarded:
            return int(self._read(offset, size))
        store, value = self._store, 0
        answer = store.begin()
        if answer is not None:
            return answer
        try:
            value = operator.index(self._read(offset, size)) & ((1 << 8 * size) - 1)
            self._keep()
        finally:
            store.end(value)
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """The access, unless it was made before."""
        if offset in self._unguarded:
            self._write(offset, size, value)
        elif self._store.begin() is None:
            try:
                self._write(offset, size, value)
                self._keep()
            finally:
                self._store.end(0)


def _nothing() -> None:
    """What a device that saves by itself has kept for it."""


def _copy_size(size: int) -> int:
    return (_STATE * _WORD + size + _WORD - 1) // _WORD * _WORD
