"""`SoftBackend`: the interrupt abstraction over the raise page of a software machine (native/raise.h).

What a handle stands for is in the record, which shards cannot write: a line of the interrupt controllers, the
PIC's output, or a message. The vCPU workers look there for every bit that is raised.
"""

from __future__ import annotations

import heapq

from shardio._core import lib
from shardio.closing import Closing
from shardio.errors import InterruptError
from shardio.interrupt.backend import Irqfd
from shardio.interrupt.config import EXTINT, MsiConfig
from shardio.interrupt.raising import RaisePage
from shardio.interrupt.wires import no_controllers
from shardio.soft.record import Record

LINES = lib.SIO_WIRED_LINES
FIRST_DYNAMIC_GSI = 256
"""The first number of an interrupt that is no line: behind EXTINT."""


class SoftBackend(Closing):
    """An `InterruptBackend` of one machine. `board`: it brings its interrupt controllers itself; else there
    are lines once a device is one. Close it before the record.
    """

    def __init__(self, record: Record, *, board: bool = True) -> None:
        self._record = record
        self._board = board
        self._page: RaisePage | None = RaisePage(record.raise_fd)
        self._free = list(range(1, lib.SIO_RAISE_HANDLES))  # sorted, hence a heap
        self._irqfds: dict[int, Irqfd] = {}
        self._messages: dict[int, MsiConfig] = {}
        self._connected: set[int] = set()

    def allocate(self, gsi: int | None, *, level: bool = False, followed: bool = False) -> Irqfd:
        """See `InterruptBackend.allocate`. Raises InterruptError for a line that leads to no device."""
        if gsi is None and level:
            raise InterruptError("MSI", "messages are edges", "ask for a level interrupt on a line")
        if gsi is not None and gsi != EXTINT and not 0 <= gsi < LINES:
            raise InterruptError(gsi, "no such line", f"use 0 to {LINES - 1}, or MSI")
        if gsi is not None and not self._board and not self._record.view.controllers:
            raise no_controllers(gsi)
        if self._page is None:
            raise InterruptError("request", "the machine is closed", "make a new Machine")
        if not self._free:
            what = f"all {lib.SIO_RAISE_HANDLES - 1} interrupts are in use"
            raise InterruptError("MSI" if gsi is None else gsi, what, "free those that are no longer used")
        handle = heapq.heappop(self._free)
        number = FIRST_DYNAMIC_GSI + handle if gsi is None else gsi
        irqfd = self._page.irqfd(handle, number, self._record.raise_fd, level=level)
        self._irqfds[handle] = irqfd
        return irqfd

    def set_route(self, handle: int, message: MsiConfig) -> None:
        """See `InterruptBackend.set_route`."""
        gsi = self._known(handle).gsi
        if gsi < FIRST_DYNAMIC_GSI:
            hint = "allocate an interrupt without a GSI"
            raise InterruptError(gsi, "is a line, it carries no message", hint)
        self._messages[handle] = message
        if handle in self._connected:
            self._publish(handle)

    def connect(self, handle: int) -> None:
        """See `InterruptBackend.connect`."""
        self._known(handle)
        if handle not in self._connected:
            lib.sio_raise_clear(self._record.page, handle)
            self._connected.add(handle)
            self._publish(handle)

    def disconnect(self, handle: int) -> None:
        """See `InterruptBackend.disconnect`."""
        self._known(handle)
        if handle in self._connected:
            self._connected.remove(handle)
            lib.sio_soft_set_route(self._record.view, handle, lib.SIO_SOFT_NOWHERE, 0, 0, 0)
            lib.sio_raise_clear(self._record.page, handle)

    def free(self, handle: int) -> None:
        """See `InterruptBackend.free`."""
        self.disconnect(handle)
        del self._irqfds[handle]
        self._messages.pop(handle, None)
        heapq.heappush(self._free, handle)

    def close(self) -> None:
        """Free everything."""
        for handle in list(self._irqfds):
            self.free(handle)
        self._page = None

    def _known(self, handle: int) -> Irqfd:
        try:
            return self._irqfds[handle]
        except KeyError:
            raise InterruptError(f"handle {handle}", "is not allocated", "free each irqfd once") from None

    def _publish(self, handle: int) -> None:
        gsi, message, view = self._irqfds[handle].gsi, self._messages.get(handle), self._record.view
        if gsi < FIRST_DYNAMIC_GSI:
            lib.sio_soft_set_route(view, handle, lib.SIO_SOFT_LINE, gsi, 0, 0)
        elif message is not None:
            lib.sio_soft_set_route(view, handle, lib.SIO_SOFT_MESSAGE, 0, message.address, message.data)
