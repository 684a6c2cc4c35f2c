"""A shard's end of a fabric: the table from range index to device handler, over the C drain loop."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

from shardio._core import ffi, lib
from shardio.address import Space
from shardio.device import HandlerForm, handler_form, view_handlers
from shardio.errors import FabricError
from shardio.fabric.segment import Fabric
from shardio.range import MmioRange, PioRange

ErrorHook = Callable[[int, BaseException, int], None]
"""Called with (range index, exception, 1 for a write) when a handler raises."""


class Turn(IntEnum):
    """Why a turn of the drain loop ended."""

    HOT = lib.SIO_TURN_HOT
    EVENTS = lib.SIO_TURN_EVENTS
    ASLEEP = lib.SIO_TURN_ASLEEP


class Owner:
    """Serves one shard's requests. One owner at a time per shard, in one thread.

    `doorbell`: a non-blocking eventfd that clients ring while `turn` has announced sleep; -1 for none.
    """

    def __init__(
        self, fabric: Fabric, shard: int, doorbell: int = -1, on_error: ErrorHook | None = None
    ) -> None:
        self.fabric = fabric
        self.shard = shard
        self.view = ffi.new("struct sio_owner *")
        self._kept: dict[int, tuple[Any, ...]] = {}
        self._posted: set[int] = set()
        self._on_error = on_error or _ignore
        if status := lib.sio_owner_init(self.view, fabric.view, shard, doorbell):
            raise FabricError(
                f"cannot own shard {shard} of {fabric.shards}: error {-status}", "use a shard of this fabric"
            )
        lib.sio_py_attach(self.view, id(self._on_error))

    def close(self) -> None:
        """Stop serving. Idempotent."""
        if self.view is not None:
            lib.sio_py_detach(self.view)
            lib.sio_owner_free(self.view)
            self.view = None
            self._kept.clear()

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
        status = lib.sio_owner_set_handler(
            self.view,
            index,
            kind,
            int(space is Space.MMIO),
            forms,
            int(span.base),
            int(span.last),
            id(read),
            id(write),
            id(span.base),
            getattr(device, "native_handler", 0),
            getattr(device, "native_context", 0),
        )
        if status:
            raise FabricError(
                f"no range {index} in a fabric of {self.fabric.ranges}", "make the fabric with more ranges"
            )
        self._kept[index] = (device, read, write, span.base)
        if posted:
            self._posted.add(index)
        self.view.posted_ranges = len(self._posted)

    def flush(self) -> None:
        """Serve everything that has been posted so far."""
        lib.sio_py_flush(self.view)

    def clear_handler(self, index: int) -> None:
        """Forget range `index`, once everything that was posted to it has been served."""
        self.flush()
        lib.sio_owner_clear_handler(self.view, index)
        self._kept.pop(index, None)
        self._posted.discard(index)
        self.view.posted_ranges = len(self._posted)

    def turn(self, turn_ns: int, epoll_fd: int = -1) -> Turn:
        """Serve for at most `turn_ns` nanoseconds: see `Turn`. `epoll_fd`: return early when host I/O is
        ready on it.
        """
        return Turn(lib.sio_py_turn(self.view, turn_ns, epoll_fd))

    def raise_line(self, gsi: int) -> bool:
        """Have interrupt line `gsi` (below 32) raised with the completion of the access in hand: the vCPU
        worker pulses it before the guest goes on. False outside an access, and in any other thread.
        """
        return bool(lib.sio_owner_raise(self.view, gsi))

    def scan(self) -> int:
        """Serve what is there now, once; returns how many requests and posted writes that was."""
        return int(lib.sio_py_scan(self.view))


def _callable(device: object, view: Any, space: Space, *, write: bool) -> tuple[Callable[..., Any], bool]:
    """The function to call and whether it takes a memoryview."""
    direction = "write" if write else "read"
    if handler_form(device, space, write=write) is HandlerForm.REGISTER:
        return getattr(device, direction), False
    return getattr(view, f"{space}_{direction}"), True


def _ignore(_index: int, _error: BaseException, _write: int) -> None:
    pass
