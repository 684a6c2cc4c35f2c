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
import functools
import mmap
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from shardio._core import ffi, lib
from shardio.device import HandlerForm, handler_form, view_handlers
from shardio.errors import DeviceStateError

if TYPE_CHECKING:
    from shardio.mark import Name

    class Store:
        """The steps of an access, in C (native/persistent.c)."""

        def save(self, state: bytes, /) -> None:
            """Keep `state`: from the end of the access in hand on, or, outside of one, from now on.

            Raises `DeviceStateError` for more than the device declared, ValueError once it is closed.
            """

        def save_changed(self, state: bytes, /) -> None:
            """The same, of a state that is another one than the last; of that one, nothing."""

        def begin(self) -> int | None:
            """An access begins. Its answer where a predecessor has made it: it is not to be made again."""

        def end(self, answer: int, /) -> None:
            """The access ends; `answer`: what was read, 0 of a write."""

        def journal(self) -> Name:
            """The name of the access in hand, or of the last one."""

    class Guarded:
        """A device's handlers, each access between `begin` and `end` of its store, in C; `keep`, where it is
        not None, is called before the end. `unguarded`: offsets in register form that need neither;
        `unguarded_reads`: those where reads of one byte need neither.
        """

        def __init__(
            self, store: Store, read: Any, write: Any, keep: Any,
            unguarded: frozenset[int], unguarded_reads: frozenset[int], /,
        ) -> None: ...  # fmt: skip

        read: Callable[[int, int], int]
        write: Callable[[int, int, int], None]
        view_read: Callable[[int, int, memoryview], None]
        view_write: Callable[[int, int, memoryview], None]

else:
    _made: dict[str, Any] = {}
    if lib.sio_persistent_into(id(_made)):
        raise MemoryError

    Store, Guarded = _made["Store"], _made["Guarded"]

_encode = msgspec.msgpack.Encoder().encode
_WORD = 8
_HEADER = lib.SIO_STORE_HEADER
_STATE = lib.SIO_STORE_STATE
_COUNT_AT = 0
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


class Journal:
    """What names the access in hand where no shard does by its journal: in a replay, and in tests."""

    def __init__(self) -> None:
        self._control = ffi.new("struct sio_shard_control *")
        self.control_at = int(ffi.cast("uintptr_t", self._control))
        """See `Persistent`; as long as this lives."""

    def name(self, request: int, element: int = 0) -> None:
        """An access begins, and this is its name."""
        self._control.taken, self._control.element = request, element


class Persistent(Store):
    """The memory at `fd` (which stays the caller's), of states of at most `size` bytes and an area of `area`
    (a multiple of 8). `control_at` is where the words are (native/layout.h) that name the access in hand, or
    the last one, by request and element.
    """

    def __init__(self, fd: int, size: int, control_at: int, *, area: int = 0) -> None:
        self.control_at = control_at
        self.fd = os.dup(fd)
        """The same open file: its offset, which the kernel keeps, is one for all owners."""
        self._size = size
        self.area_at = _HEADER + 2 * _copy_size(size)
        """Where the area begins in the file."""
        self._map = mmap.mmap(fd, self.area_at + area)
        self._bytes = memoryview(self._map)
        self.area = self._bytes[self.area_at :]
        """Writable memory that a successor finds as it is, at whatever instruction its predecessor died."""
        self.state = self._last_state()
        """What was saved last when this owner began; None where nothing was."""
        words = ffi.cast("uint64_t *", ffi.from_buffer(self._map))
        lib.sio_store_open(id(self), words, size, ffi.cast("struct sio_shard_control *", control_at))

    def guard(self, device: Any, space: str, keep: Callable[[], None] | None = None) -> Any:
        """The device's handlers for a space ("pio", "mmio"), each access an effect and an answer at once.
        `keep` is called before the end of each.

        A device that calls `begin` and `end` itself says so by an attribute `guards_itself`; one in register
        form that needs neither for some registers names their offsets as `unguarded`, a frozenset, those
        where a read of one byte changes nothing as `unguarded_reads`, or says by `reads_change = False` that
        no read does.
        """
        if getattr(device, "guards_itself", False):
            return device
        forms = {handler_form(device, space, write=write) for write in (False, True)}
        guard = Guard()
        if forms == {HandlerForm.REGISTER}:
            offsets = (frozenset(getattr(device, name, ())) for name in ("unguarded", "unguarded_reads"))
            guarded = Guarded(self, device.read, device.write, keep, *offsets)
            changing = getattr(device, "reads_change", True)
            guard.read, guard.write = guarded.read if changing else device.read, guarded.write
        else:
            device = view_handlers(device, space)
            read, write = getattr(device, f"{space}_read"), getattr(device, f"{space}_write")
            guarded = Guarded(self, read, write, keep, frozenset(), frozenset())
            setattr(guard, f"{space}_read", guarded.view_read)
            setattr(guard, f"{space}_write", guarded.view_write)
        return guard

    def keeper(self, device: Any) -> Callable[[], None]:
        """Restores the device to what a predecessor saved, and gives what saves its state if that has
        changed. The state is what `kept` gives where it has that method, else `snapshot`; its class says as
        `state_type` which Struct that is. A device whose state is one buffer, always of the same length, has
        it as `state_bytes`, and nothing is encoded.
        """
        if (raw := getattr(device, "state_bytes", None)) is not None:
            if self.state is not None:
                memoryview(raw)[:] = self.state
            return functools.partial(self.save_changed, raw)
        state_of = getattr(device, "kept", device.snapshot)
        if self.state is not None:
            device.restore(msgspec.msgpack.decode(self.state, type=device.state_type))

        def keep() -> None:
            self.save_changed(_encode(state_of()))

        return keep

    def close(self) -> None:
        """Let the memory go. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        lib.sio_store_open(id(self), ffi.NULL, 0, ffi.NULL)
        self.area.release()
        self._bytes.release()
        with contextlib.suppress(BufferError):  # a device kept a view: the memory stays as long as that
            self._map.close()

    def _last_state(self) -> bytes | None:
        with self._bytes[: self.area_at].cast("Q") as words:
            count = words[_COUNT_AT]
            here = (_HEADER + (count & 1) * _copy_size(self._size)) // _WORD
            length = min(words[here + lib.SIO_STORE_LENGTH], self._size)
        start = _WORD * (here + _STATE)
        return bytes(self._bytes[start : start + length]) if count else None

    def _too_long(self, state: bytes) -> None:
        raise DeviceStateError(len(state), self._size)


class Guard:
    """Where a shard finds a device's guarded handlers: by their names, in one form or the other."""

    read: Callable[[int, int], int]
    write: Callable[[int, int, int], None]


def _copy_size(size: int) -> int:
    return (_STATE * _WORD + size + _WORD - 1) // _WORD * _WORD
