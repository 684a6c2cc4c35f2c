"""A shard's end of a fabric: the table from range index to device handler, over the C drain loop."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from shardio._core import ffi, lib
from shardio.address import Space
from shardio.device import HandlerForm, handler_form, view_handlers
from shardio.errors import FabricError, InvalidDevice
from shardio.fabric import barrier
from shardio.fabric.alone import Alone
from shardio.fabric.segment import Fabric
from shardio.fabric.tracing import OwnerTrace
from shardio.range import MmioRange, PioRange

if TYPE_CHECKING:
    from array import array

ErrorHook = Callable[[int, BaseException, int], None]
"""Called with (range index, exception, what) when a handler raises, the first time that it raises at that
place in its code: a guest may run into it a million times a second. What: 1 for a write, 0 for a read, or
`RUNG`.
"""

NO_RANGE = lib.SIO_NO_RANGE
"""In place of a range's index: nobody knows which device that is."""
RUNG = lib.SIO_RUNG
"""What the hook for errors gets in place of a direction: a device that raised when its doorbell was rung."""

_HINTS = {
    errno.ENOMEM: "free memory on the host, or raise the limit on it (ulimit -v)",
    errno.EOPNOTSUPP: barrier.HINT,
}


class Turn(IntEnum):
    """Why a turn of the drain loop ended."""

    HOT = lib.SIO_TURN_HOT
    EVENTS = lib.SIO_TURN_EVENTS
    ASLEEP = lib.SIO_TURN_ASLEEP


class Owner:
    """Serves one shard's requests. One owner at a time per shard, one call of it at a time: a second one, in
    another thread or in a handler, is a `FabricError`, as is one after `close` or after the fabric's, and
    whatever a fork of this process asks, one that comes back from a handler included.

    `doorbell`: a non-blocking eventfd that clients ring while `turn` has announced sleep; -1 for none.
    """

    def __init__(
        self, fabric: Fabric, shard: int, doorbell: int = -1, on_error: ErrorHook | None = None
    ) -> None:
        self.fabric = fabric
        self.shard = fabric.checked("shard", shard)
        self.doorbell = doorbell
        # Told to let go of its forks' rings before its memory goes, closed or not.
        self.view = ffi.gc(ffi.new("struct sio_owner *"), lib.sio_owner_let_go)
        self._segment = fabric.mapped_again()  # which no fork inherits
        control = self._segment.shard[shard]
        self.control_at = int(ffi.cast("uintptr_t", ffi.addressof(control)))
        """Where the shard's control words are in this process's memory, until this is closed."""
        self._alone = Alone(f"the owner of shard {shard}")
        self._coalesced: object = None
        self._kept: dict[int, tuple[Any, ...]] = {}
        self._posted: set[int] = set()
        self._bells: dict[int, tuple[object, ...]] = {}
        self._on_error = on_error or _ignore
        self._check(lib.sio_owner_init(self.view, self._segment, shard, doorbell))
        try:
            self._check(lib.sio_py_attach(self.view, id(self._on_error)))
            self._check(lib.sio_owner_keep(self.view))
        except FabricError:
            lib.sio_py_detach(self.view)
            lib.sio_owner_free(self.view)
            raise

    def _check(self, status: int) -> None:
        if status:
            why = os.strerror(-status)
            raise FabricError(f"cannot own shard {self.shard}: {why}", _HINTS.get(-status, ""))

    def close(self) -> None:
        """Stop serving. Idempotent; nothing in a fork of the process that it belongs to.

        Raises `FabricError` while another thread, or a handler, is inside.
        """
        if self.elsewhere:
            return
        with self._alone:
            if self.view is None:
                return
            lib.sio_owner_let_go(self.view)
            lib.sio_py_detach(self.view)
            lib.sio_owner_free(self.view)
            self.view = self._segment = self._coalesced = None
            self._kept.clear()

    @property
    def elsewhere(self) -> bool:
        """Whether this is a fork of the process that serves: here, there is nothing to serve."""
        return self._alone.elsewhere

    def _opened(self) -> Any:
        """The core's struct. Raises `FabricError` once this or the fabric is closed."""
        _ = self.fabric.view
        if self.view is None:
            raise FabricError(f"the owner of shard {self.shard} is closed", "make another one")
        return self.view

    def set_handler(
        self, index: int, span: PioRange | MmioRange, device: object, *, posted: bool = False
    ) -> None:
        """Let `device` answer range `index`, in the quickest form that it offers for each direction.

        Raises `InvalidDevice` where it has no handler in that space, `FabricError` for an index out of
        bounds.
        """
        space = Space.PIO if isinstance(span, PioRange) else Space.MMIO
        kind, forms, read, write = lib.SIO_PYTHON, 0, None, None
        if handler_form(device, space, write=False) is HandlerForm.NATIVE:
            kind = lib.SIO_NATIVE
        else:
            view = view_handlers(device, space)
            read, view_read = _callable(device, view, space, write=False)
            write, view_write = _callable(device, view, space, write=True)
            forms = (lib.SIO_READ_VIEW if view_read else 0) | (lib.SIO_WRITE_VIEW if view_write else 0)
        native = getattr(device, "native_handler", 0), getattr(device, "native_context", 0)
        base, last = int(span.base), int(span.last)
        with self._alone:
            owner = self._opened()
            self.fabric.checked("range", index)
            lib.sio_owner_set_handler(
                owner,
                index,
                kind,
                int(space is Space.MMIO),
                forms,
                base,
                last,
                id(read),
                id(write),
                id(span.base),
                *native,
            )
            self._kept[index] = (device, read, write, span.base)
            if posted:
                self._posted.add(index)
            owner.posted_ranges = len(self._posted)

    def set_manager(
        self, index: int, span: PioRange | MmioRange, manager: object, *, posted: bool = False
    ) -> None:
        """Let `manager` dispatch the accesses to range `index`: a `PioManager` or a `MmioManager`
        (`shardio.io_manager`), an `IoManager` or one of another make. It gets them by address.

        Raises `InvalidDevice` where it does not dispatch that space, and what `set_handler` raises.
        """
        self.set_handler(index, span, _Through(manager, span), posted=posted)

    def flush(self) -> None:
        """Serve everything that has been posted so far."""
        with self._alone:
            lib.sio_py_flush(self._opened())
        self._alone.check_process()

    def clear_handler(self, index: int) -> None:
        """Forget range `index`, once everything that was posted to it has been served."""
        with self._alone:
            owner = self._opened()
            lib.sio_py_flush(owner)
            lib.sio_owner_clear_handler(owner, index)
            self._kept.pop(index, None)
            self._posted.discard(index)
            owner.posted_ranges = len(self._posted)

    def turn(self, turn_ns: int, epoll_fd: int = -1) -> Turn:
        """Serve for at most `turn_ns` nanoseconds, or a little longer where a handler does.

        `Turn` says what to do next: after `HOT` call again, after `EVENTS` once the event loop has run (host
        I/O is ready on `epoll_fd`, an epoll descriptor; -1: do not look), after `ASLEEP` when the doorbell
        is readable, and every 0.1 s or so besides. A turn begins by emptying the doorbell; an event loop may
        have read it before.
        """
        with self._alone:
            turn = Turn(lib.sio_py_turn(self._opened(), turn_ns, epoll_fd))
        self._alone.check_process()  # a handler may have forked, and this may be the child
        return turn

    def wait(self, turn_ns: int, epoll_fd: int, timeout_ms: int) -> tuple[bool, bool]:
        """Sleep until something is ready on `epoll_fd`, an epoll descriptor that has the owner's doorbell and
        those of `add_bell`, at most `timeout_ms` milliseconds (-1: for ever). Doorbells are delivered, and a
        turn is made where the owner's own was rung.

        Returns whether a turn is due, and whether something is ready that is neither.
        """
        with self._alone:
            found = int(lib.sio_py_wait(self._opened(), turn_ns, epoll_fd, timeout_ms))
        self._alone.check_process()
        return bool(found & lib.SIO_WAITED_TURN), bool(found & lib.SIO_WAITED_EVENTS)

    def add_bell(
        self, epoll_fd: int, fd: int, ring: Callable[[int], object], index: int, rings: array[int],
        device: int = NO_RANGE,
    ) -> None:  # fmt: skip
        """Have `wait` and `turn` call `ring(index)` when eventfd `fd`, a non-blocking one, was rung, and
        count in `rings[index]` (of type "Q") how often it was. `device`: index of a range of its device's,
        for a trace and the hook for errors. Raises `FabricError` where it cannot be watched.
        """
        self._alone.check_process()
        count = ffi.addressof(ffi.from_buffer("uint64_t[]", rings), index)
        status = lib.sio_py_add_bell(self._opened(), epoll_fd, fd, id(ring), index, count, device)
        if status:
            raise FabricError(f"a doorbell cannot be watched: {os.strerror(-status)}")
        self._bells[fd] = ring, rings, count

    def remove_bell(self, epoll_fd: int, fd: int) -> None:
        """No more. As `add_bell`, for the thread that serves: a handler may move its doorbells."""
        self._alone.check_process()
        if self.view is not None:
            lib.sio_py_remove_bell(self.view, epoll_fd, fd)
        self._bells.pop(fd, None)

    def drain_also(self, coalesced: Any) -> None:
        """Drain KVM's coalesced ring too (`struct sio_coalesced *`), before every request; None: no more."""
        with self._alone:
            lib.sio_owner_coalesced(self._opened(), ffi.NULL if coalesced is None else coalesced)
            self._coalesced = coalesced

    def hold(self) -> bool:
        """Have the vCPU of the access in hand not go on, for up to a second, before the VMM has said what
        becomes of the machine. False outside an access, and once this is closed.
        """
        owner = self.view
        return owner is not None and bool(lib.sio_owner_hold(owner))

    def raise_line(self, gsi: int) -> bool:
        """Have interrupt line `gsi` (below 32) raised with the completion of the access in hand: the vCPU
        worker pulses it before the guest goes on. False outside an access, in any other thread, and once
        this is closed.
        """
        owner = self.view
        return owner is not None and bool(lib.sio_owner_raise(owner, gsi))

    def set_level(self, bit: int, high: bool) -> bool:
        """Make a wired line high or low: a bit of SIO_LINE_* (`shardio.interrupt.wires`). True where the
        completion of the access in hand tells of it; False where `raise_line` would.
        """
        owner = self.view
        return owner is not None and bool(lib.sio_owner_set_level(owner, bit, high))

    def tracing(self) -> OwnerTrace:
        """For what happens beside accesses. It may be used after `close`."""
        return OwnerTrace(self._opened(), self._segment)

    def scan(self) -> int:
        """Serve what is there now, once; returns how many requests and posted writes that was."""
        with self._alone:
            served = int(lib.sio_py_scan(self._opened()))
        self._alone.check_process()
        return served


class _Through:
    """A device that hands each access on to a manager, by its address."""

    def __init__(self, manager: Any, span: PioRange | MmioRange) -> None:
        space = Space.PIO if isinstance(span, PioRange) else Space.MMIO
        read, write = (getattr(manager, f"{space}_{direction}", None) for direction in ("read", "write"))
        if not (callable(read) and callable(write)):
            hint = f"give it {space}_read(address, data) and {space}_write(address, data)"
            raise InvalidDevice(type(manager).__name__, space, hint)

        def read_through(base: int, offset: int, data: memoryview) -> None:
            read(base + offset, data)

        def write_through(base: int, offset: int, data: memoryview) -> None:
            write(base + offset, data)

        setattr(self, f"{space}_read", read_through)
        setattr(self, f"{space}_write", write_through)


def _callable(device: object, view: Any, space: Space, *, write: bool) -> tuple[Callable[..., Any], bool]:
    """The function to call and whether it takes a memoryview."""
    direction = "write" if write else "read"
    if handler_form(device, space, write=write) is HandlerForm.REGISTER:
        return getattr(device, direction), False
    return getattr(view, f"{space}_{direction}"), True


def _ignore(_index: int, _error: BaseException, _write: int) -> None:
    pass
