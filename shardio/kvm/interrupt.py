"""`KvmBackend`: the interrupt abstraction over KVM's irqfds and GSI routing. Used by the process that made
the VM.

Facts. KVM replaces a VM's routing table whole, so its single owner is this object: the controllers' default
pins plus one MSI entry for each dynamic GSI that has a message. Legacy lines keep the GSIs of the IOAPIC's
pins; dynamic ones begin above them. Several irqfds may share a GSI; with resample fds KVM ORs the line and
tells all of them of the guest's EOI. A split irqchip has neither legacy pins in the kernel nor resample:
only messages work there.
"""

from __future__ import annotations

import heapq
import os
from typing import TYPE_CHECKING

from shardio.errors import InterruptError
from shardio.interrupt.backend import Irqfd
from shardio.interrupt.config import MAX_GSI, MsiConfig
from shardio.kvm.routing import GsiRoute, MsiRoute, default_routes

if TYPE_CHECKING:
    from shardio.kvm.vm import Vm

FIRST_DYNAMIC_GSI = 24
"""The first GSI after the pins of KVM's IOAPIC (KVM_IOAPIC_NUM_PINS)."""


class KvmBackend:
    """An `InterruptBackend` (floor 2) of one VM. Close it before the VM."""

    def __init__(self, vm: Vm, *, split: bool = False) -> None:
        """`split`: the VM has a split irqchip (KVM_CAP_SPLIT_IRQCHIP): messages only."""
        self._vm = vm
        self._split = split
        self._irqfds: dict[int, Irqfd] = {}
        self._connected: set[int] = set()
        self._messages: dict[int, MsiConfig] = {}
        self._next_handle = 1
        self._free_gsis = list(range(FIRST_DYNAMIC_GSI, MAX_GSI + 1))  # sorted, hence a heap

    def allocate(self, gsi: int | None, *, level: bool = False) -> Irqfd:
        """See `InterruptBackend.allocate`. Raises InterruptError for a line that this VM does not have."""
        if gsi is None and level:
            raise InterruptError("MSI", "messages are edges", "ask for a level interrupt on a line")
        if gsi is not None and (self._split or not 0 <= gsi < FIRST_DYNAMIC_GSI):
            what = "the split irqchip has no lines" if self._split else "no such line"
            raise InterruptError(
                gsi, what, f"use MSI, or lines 0 to {FIRST_DYNAMIC_GSI - 1} of a full irqchip"
            )
        if gsi is None and not self._free_gsis:
            raise InterruptError("MSI", "all GSIs are in use", "free interrupts that are no longer used")
        try:
            fds = _eventfds(2 if level else 1)
        except OSError as error:
            raise InterruptError(
                "eventfd", str(error.strerror), "raise the limit on open files (ulimit -n)"
            ) from error
        taken = heapq.heappop(self._free_gsis) if gsi is None else gsi
        irqfd = Irqfd(self._next_handle, taken, fds[0], fds[1] if level else None)
        self._next_handle += 1
        self._irqfds[irqfd.handle] = irqfd
        return irqfd

    def set_route(self, handle: int, message: MsiConfig) -> None:
        """See `InterruptBackend.set_route`. Raises KvmError when the kernel refuses the table."""
        gsi = self._known(handle).gsi
        if gsi < FIRST_DYNAMIC_GSI:
            raise InterruptError(
                gsi, "is a line, it carries no message", "allocate an interrupt without a GSI"
            )
        self._messages[gsi] = message
        self._publish()

    def connect(self, handle: int) -> None:
        """See `InterruptBackend.connect`. Raises KvmError when the kernel refuses the irqfd."""
        if handle not in self._connected:
            irqfd = self._known(handle)
            self._vm.irqfd(irqfd.fd, irqfd.gsi, resample_fd=irqfd.resample_fd)
            self._connected.add(handle)

    def disconnect(self, handle: int) -> None:
        """See `InterruptBackend.disconnect`."""
        if handle in self._connected:
            irqfd = self._known(handle)
            self._vm.irqfd(irqfd.fd, irqfd.gsi, deassign=True)
            self._connected.remove(handle)

    def free(self, handle: int) -> None:
        """See `InterruptBackend.free`."""
        self.disconnect(handle)
        irqfd = self._known(handle)
        del self._irqfds[handle]
        os.close(irqfd.fd)
        if irqfd.resample_fd is not None:
            os.close(irqfd.resample_fd)
        if irqfd.gsi >= FIRST_DYNAMIC_GSI:
            # The stale route does no harm, nothing is bound to its GSI: the next table leaves it out.
            self._messages.pop(irqfd.gsi, None)
            heapq.heappush(self._free_gsis, irqfd.gsi)

    def close(self) -> None:
        """Free everything."""
        for handle in list(self._irqfds):
            self.free(handle)

    def _known(self, handle: int) -> Irqfd:
        try:
            return self._irqfds[handle]
        except KeyError:
            raise InterruptError(f"handle {handle}", "is not allocated", "free each irqfd once") from None

    def _publish(self) -> None:
        wired: tuple[GsiRoute, ...] = () if self._split else default_routes()
        messages = tuple(
            MsiRoute(gsi, message.address, message.data, message.device_id)
            for gsi, message in sorted(self._messages.items())
        )
        self._vm.set_gsi_routing(wired + messages)


def _eventfds(count: int) -> list[int]:
    fds: list[int] = []
    try:
        for _ in range(count):
            fds.append(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    return fds
