"""`RecordingBackend`: an interrupt backend without a hypervisor, for unit tests of devices and of the
abstraction.

Its eventfds are real and nobody injects anything: `delivered` reads how often each was written while
connected, `end_of_interrupt` plays the guest that ends a level interrupt.
"""

from __future__ import annotations

import os

from shardio.closing import Closing
from shardio.errors import InterruptError
from shardio.interrupt.backend import Irqfd
from shardio.interrupt.config import MsiConfig

FIRST_DYNAMIC_GSI = 24
"""The first GSI after the pins of the x86 IOAPIC."""


class RecordingBackend(Closing):
    """Keeps every irqfd, its route and whether it is connected. Close it, or use it as a context manager."""

    def __init__(self, dynamic_gsis: int = 1024) -> None:
        """`dynamic_gsis`: how many MSI vectors can be allocated."""
        self.irqfds: dict[int, Irqfd] = {}
        self.routes: dict[int, MsiConfig] = {}
        self.connected: set[int] = set()
        self._next_handle = 1
        self._free_gsis = list(range(FIRST_DYNAMIC_GSI, FIRST_DYNAMIC_GSI + dynamic_gsis))

    def allocate(self, gsi: int | None, *, level: bool = False, followed: bool = False) -> Irqfd:
        """See `InterruptBackend.allocate`."""
        if gsi is None:
            if not self._free_gsis:
                raise InterruptError("MSI", "no free GSI is left", "free interrupts that are no longer used")
            gsi = self._free_gsis.pop(0)
        resample = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if level else None
        irqfd = Irqfd(self._next_handle, gsi, os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), resample)
        self._next_handle += 1
        self.irqfds[irqfd.handle] = irqfd
        return irqfd

    def set_route(self, handle: int, message: MsiConfig) -> None:
        """See `InterruptBackend.set_route`."""
        self.routes[self._known(handle).gsi] = message

    def connect(self, handle: int) -> None:
        """See `InterruptBackend.connect`."""
        self._known(handle)
        self.connected.add(handle)

    def disconnect(self, handle: int) -> None:
        """See `InterruptBackend.disconnect`."""
        self._known(handle)
        self.connected.discard(handle)

    def free(self, handle: int) -> None:
        """See `InterruptBackend.free`."""
        irqfd = self._known(handle)
        self.connected.discard(handle)
        del self.irqfds[handle]
        self.routes.pop(irqfd.gsi, None)
        if irqfd.gsi >= FIRST_DYNAMIC_GSI:
            self._free_gsis.append(irqfd.gsi)
        os.close(irqfd.fd)
        if irqfd.resample_fd is not None:
            os.close(irqfd.resample_fd)

    def _known(self, handle: int) -> Irqfd:
        try:
            return self.irqfds[handle]
        except KeyError:
            raise InterruptError(f"handle {handle}", "is not allocated", "free each irqfd once") from None

    # -- what a test asks -------------------------------------------------------------------------------

    def delivered(self, gsi: int) -> int:
        """How many triggers of connected irqfds of `gsi` arrived since the last call."""
        total = 0
        for irqfd in self.irqfds.values():
            if irqfd.gsi == gsi and irqfd.handle in self.connected:
                try:
                    total += os.eventfd_read(irqfd.fd)
                except BlockingIOError:
                    continue
        return total

    def end_of_interrupt(self, gsi: int) -> None:
        """The guest ends the level interrupt: every device on the line is asked whether it is still
        active.
        """
        for irqfd in self.irqfds.values():
            if irqfd.gsi == gsi and irqfd.resample_fd is not None:
                os.eventfd_write(irqfd.resample_fd, 1)

    def close(self) -> None:
        """Free what is left."""
        for handle in list(self.irqfds):
            self.free(handle)
