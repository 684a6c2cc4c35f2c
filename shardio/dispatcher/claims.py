"""What the devices of a dispatcher claim before anything runs: their names, interrupt lines and addresses.

Needs no hypervisor and no guest memory, only what those answer themselves, so that a configuration is checked
by claiming what it says, in a machine that is never made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from shardio.dispatcher.device import DeviceHandle, DeviceRequest, IrqMode, Span
from shardio.errors import MachineError
from shardio.interrupt.wires import LINES
from shardio.memory import MemoryRegion
from shardio.range import MmioRange, PioRange
from shardio.reserved import Reserved
from shardio.resources import Resource, ResourceAllocator, ResourceConstraint
from shardio.routing import AddressMap
from shardio.spelling import listed, nearest


def _cannot_call(handle: DeviceHandle, *_: Any) -> Any:
    raise MachineError(f"device {handle.name} is in no dispatcher", "add() it to one")


class Claims:
    """Devices by name (`handles`) and by address (`routes`).

    `regions`: guest RAM; `reserved`: tells what else answers in a device's place (`shardio.reserved`);
    `interrupts`: the hypervisor's, or whatever else stands for lines being there, `lines` of them or as many
    as an IOAPIC has; None where there are none;
    `line_hint`: what to do then; `call`: `DeviceHandle.call` of a running dispatcher.
    """

    def __init__(
        self,
        regions: Sequence[MemoryRegion] = (),
        reserved: Callable[[Span], Reserved | None] = lambda _: None,
        interrupts: object | None = None,
        line_hint: str = "use irqchip=True",
        call: Callable[..., Any] = _cannot_call,
    ) -> None:
        self.handles: dict[str, DeviceHandle] = {}
        self.routes = AddressMap(regions=regions, reserved=reserved)
        self._interrupts = interrupts
        self._line_hint = line_hint
        self._call_device = call
        self._copies: dict[str, int] = {}
        self._allocator: ResourceAllocator | None = None

    def claim(self, request: DeviceRequest, *, named: bool) -> DeviceHandle:
        """Give a device its name and its addresses. `named`: by its user, so that it is not changed.

        Raises `MachineError` for a name that is taken, `DeviceOverlap`, `RangeTaken`, `ResourceUnavailable`.
        """
        if request.name in self.handles:
            if named:
                raise MachineError(
                    f"there is a device named {request.name!r}", "give each device its own name"
                )
            request.name = self._unused(request.name)
        self._choose(request)
        self.routes.claim(request.name, request.spans)
        try:
            self._check_line(request)
        except MachineError:
            self._unclaim(request.spans)
            raise
        if self._allocator is not None and not request.wanted:
            self._allocator.reserve(*map(resource_of, request.spans))
        handle = DeviceHandle(request, self._call_device)
        self.handles[handle.name] = handle
        return handle

    def give_back(self, handle: DeviceHandle) -> None:
        """Its name and addresses are free again: no vCPU and no shard may know them any more."""
        self._unclaim(handle.spans)
        if self._allocator is not None:
            self._allocator.release(*map(resource_of, handle.spans))
        self.handles.pop(handle.name, None)

    def _unclaim(self, spans: Sequence[Span]) -> None:
        for span in spans:
            if (route := self.routes.find(int(span.base), pio=isinstance(span, PioRange))) is not None:
                self.routes.remove(span)
                self.routes.release(route)

    def find(self, device: DeviceHandle | str) -> DeviceHandle:
        """The handle of a device that is there. Raises `MachineError`."""
        name = device.name if isinstance(device, DeviceHandle) else device
        handle = self.handles.get(name) if isinstance(name, str) else None
        if handle is None or (isinstance(device, DeviceHandle) and handle is not device):
            hint = "name one that was added and not removed"
            if isinstance(device, str):
                hint = nearest(device, self.handles) or listed(self.handles)
            raise MachineError(f"there is no device {device!r}", hint)
        return handle

    def _unused(self, name: str) -> str:
        number = self._copies.get(name, 1)
        while True:
            number += 1
            if (free := f"{name}{number}") not in self.handles:
                self._copies[name] = number
                return free

    def _choose(self, request: DeviceRequest) -> None:
        """Addresses, and a line, for a device that leaves them to us."""
        needs_irq = request.needs_irq and self._interrupts is not None
        if not request.wanted and not needs_irq:
            return
        allocator = self._resources()
        constraints = [*request.wanted, *([ResourceConstraint.new_legacy_irq()] if needs_irq else [])]
        got = allocator.allocate(*constraints)
        if request.wanted:
            chosen: list[Span] = [PioRange(*found) for found in got.get_pio_address_ranges()]
            chosen += [MmioRange(*found) for found in got.get_mmio_address_ranges()]
            for span in chosen:
                request.checked(span)
            request.spans = (*chosen, *request.spans)
        if needs_irq:
            request.irq = got.get_legacy_irq()

    def _resources(self) -> ResourceAllocator:
        if self._allocator is None:
            self._allocator = ResourceAllocator()
            self._allocator.reserve(*(resource_of(span) for span, _ in self.routes))
            used = {handle.request.irq for handle in self.handles.values()} - {None}
            self._allocator.exclude(
                *(Resource.LegacyIrq(irq) for irq in used if irq is not None and irq < 24)
            )
        return self._allocator

    def _check_line(self, request: DeviceRequest) -> None:
        """Raises `MachineError` for a line that cannot be, or that an edge device would share."""
        if request.irq is None:
            return
        if self._interrupts is None:
            raise MachineError(
                f"device {request.name} wants irq {request.irq} and there are no lines", self._line_hint
            )
        lines = getattr(self._interrupts, "lines", LINES)
        if request.irq >= lines:
            raise MachineError(
                f"device {request.name} wants irq {request.irq}, and there are {lines} lines",
                f"use a line from 0 to {lines - 1}",
            )
        for other in self.handles.values():
            if other.request.irq == request.irq and IrqMode.EDGE in (
                other.request.irq_mode,
                request.irq_mode,
            ):
                raise MachineError(
                    f"devices {other.name} and {request.name} share irq {request.irq}, which is an edge",
                    'give each its own line, or use irq_mode="level" for both',
                )


def resource_of(span: Span) -> Resource:
    """The range as the allocator counts it."""
    if isinstance(span, PioRange):
        return Resource.PioAddressRange(int(span.base), span.size)
    return Resource.MmioAddressRange(int(span.base), span.size)
