"""The allocator: turns the constraints of devices into resources of one machine.

Each call is all or nothing, and deterministic: first fit from the lowest number, in the order of the
arguments. That finds a place for a constraint whenever one exists; a list may still fail where another order
would fit, so put the constraints that have the least choice first, or `reserve` them.
"""

from __future__ import annotations

from collections.abc import Iterable

from shardio.address import MmioAddress, PioAddress
from shardio.errors import InvalidResource, ResourceConflict, ResourceNotAllocated, ResourceUnavailable
from shardio.range import MmioRange, PioRange
from shardio.resources.constraint import (
    GenericIrqConstraint,
    KvmMemSlotConstraint,
    LegacyIrqConstraint,
    MmioAddressConstraint,
    PciMsiIrqConstraint,
    PciMsixIrqConstraint,
    PioAddressConstraint,
    ResourceConstraint,
)
from shardio.resources.device_resources import DeviceResources
from shardio.resources.pool import IntervalPool
from shardio.resources.resource import (
    KvmMemSlot,
    LegacyIrq,
    MacAddress,
    MmioAddressRange,
    MsiIrq,
    MsiIrqType,
    PioAddressRange,
    Resource,
)

PC_ISA_IRQS = (0, 1, 2, 3, 4, 8, 13)
"""Lines with a user on every PC: timer, keyboard, cascade, COM2, COM1, clock, floating point."""


class ResourceAllocator:
    """Who owns which number of one machine.

    A constraint without a range is met inside the windows. By default these are the ports from 0x1000 up,
    where a PC has no fixed device, and the hole below 4 GiB from 3 GiB up to the I/O APIC. A constraint with
    a range and a fixed resource may lie anywhere. Legacy IRQs and message-signalled interrupts share one
    number space, as KVM's GSIs do: the first `legacy_irqs` are lines (24 pins of the I/O APIC), the rest
    below `gsis` are messages.

    >>> allocator = ResourceAllocator()
    >>> allocator.reserve(Resource.LegacyIrq(5), Resource.MmioAddressRange(0xC000_0000, 0x1000))
    >>> got = allocator.allocate(ResourceConstraint.new_mmio(0x2000), ResourceConstraint.new_legacy_irq())
    >>> [(hex(base), hex(size)) for base, size in got.get_mmio_address_ranges()], got.get_legacy_irq()
    ([('0xc0001000', '0x2000')], 6)
    >>> allocator.release(*got)
    """

    def __init__(
        self,
        *,
        pio_window: PioRange = PioRange(0x1000, 0xF000),  # noqa: B008 (frozen)
        mmio_window: MmioRange = MmioRange(0xC000_0000, 0x3EC0_0000),  # noqa: B008
        legacy_irqs: int = 24,
        excluded_irqs: Iterable[int] = PC_ISA_IRQS,
        gsis: int = 4096,
        kvm_mem_slots: int = 509,
    ) -> None:
        for window, kind in ((pio_window, PioRange), (mmio_window, MmioRange)):
            if not isinstance(window, kind):
                raise TypeError(f"a window {window!r} where a {kind.__name__} belongs")
        self._pio_window = (int(pio_window.base), int(pio_window.last))
        self._mmio_window = (int(mmio_window.base), int(mmio_window.last))
        self._legacy_irqs = legacy_irqs
        self._pio = IntervalPool(PioAddress.LAST)
        self._mmio = IntervalPool(MmioAddress.LAST)
        self._gsi = IntervalPool(gsis - 1)
        self._mem_slots = IntervalPool(kvm_mem_slots - 1)
        self._macs = IntervalPool((1 << 48) - 1)
        self._gsi_kinds: dict[int, object] = {}
        """What the first GSI of each allocation is: the kinds share the pool, and are released as such."""
        self.exclude(*map(LegacyIrq, excluded_irqs))

    def allocate(self, *constraints: ResourceConstraint) -> DeviceResources:
        """Resources that meet the constraints, in their order: all of them, or none.

        `size` memory slots are `size` resources. Raises `ResourceUnavailable` with the first constraint that
        nothing free meets.
        """
        got = DeviceResources()
        try:
            for constraint in constraints:
                for resource in self._find(constraint):
                    self._take(resource)
                    got.append(resource)
        except BaseException:
            self.release(*got)
            raise
        return got

    def reserve(self, *resources: Resource) -> None:
        """Take fixed resources, excluded or not: all of them, or none.

        Raises `ResourceConflict` for one of which a part is taken, `InvalidResource` for a number that this
        machine does not have.
        """
        done: list[Resource] = []
        try:
            for resource in resources:
                self._take(resource)
                done.append(resource)
        except BaseException:
            self.release(*done)
            raise

    def release(self, *resources: Resource) -> None:
        """Give back what `allocate` or `reserve` took, each exactly as it was: all of them, or none.

        Raises `ResourceNotAllocated` for one that is not taken so.
        """
        done: list[Resource] = []
        for resource in resources:
            pool, base, size = self._place(resource)
            as_taken = pool is not self._gsi or self._gsi_kinds.get(base) == _gsi_kind(resource)
            if not as_taken or not pool.release(base, size):
                self.reserve(*done)
                raise ResourceNotAllocated(resource)
            done.append(resource)

    def exclude(self, *resources: Resource) -> None:
        """Never choose any part of these. `reserve` and a constraint that names its number still may."""
        for resource in resources:
            pool, base, size = self._place(resource)
            pool.exclude(base, size)

    def _find(self, constraint: ResourceConstraint) -> list[Resource]:
        match constraint:
            case PioAddressConstraint(window, align, size):
                base = self._pio.find(size, align, *(window or self._pio_window))
                found: list[Resource] = [] if base is None else [PioAddressRange(base, size)]
            case MmioAddressConstraint(window, align, size):
                base = self._mmio.find(size, align, *(window or self._mmio_window))
                found = [] if base is None else [MmioAddressRange(base, size)]
            case LegacyIrqConstraint(irq):
                base = _at(self._gsi, irq, 1, last=self._legacy_irqs - 1)
                found = [] if base is None else [LegacyIrq(base)]
            case PciMsiIrqConstraint(size):
                found = self._find_msi(MsiIrqType.PCI_MSI, size)
            case PciMsixIrqConstraint(size):
                found = self._find_msi(MsiIrqType.PCI_MSIX, size)
            case GenericIrqConstraint(size):
                found = self._find_msi(MsiIrqType.GENERIC_MSI, size)
            case KvmMemSlotConstraint(slot, size):
                base = _at(self._mem_slots, slot, size, last=self._mem_slots.last)
                found = [] if base is None else [KvmMemSlot(base + index) for index in range(size)]
            case _:
                raise InvalidResource(type(constraint).__name__, "no constraint that an allocator knows")
        if not found:
            raise ResourceUnavailable(constraint)
        return found

    def _find_msi(self, ty: MsiIrqType, size: int) -> list[Resource]:
        base = self._gsi.find(size, 1, self._legacy_irqs, self._gsi.last)
        return [] if base is None else [MsiIrq(ty, base, size)]

    def _take(self, resource: Resource) -> None:
        pool, base, size = self._place(resource)
        holder = pool.holder(base, size)
        if holder is not None:
            raise ResourceConflict(resource, holder[0], holder[0] + holder[1] - 1)
        pool.take(base, size)
        if pool is self._gsi:
            self._gsi_kinds[base] = _gsi_kind(resource)

    def _place(self, resource: Resource) -> tuple[IntervalPool, int, int]:
        """The pool of a resource, and its interval in it."""
        match resource:
            case PioAddressRange(base, size):
                place = self._pio, base, size
            case MmioAddressRange(base, size):
                place = self._mmio, base, size
            case LegacyIrq(irq):
                place = self._gsi, irq, 1
            case MsiIrq(_, base, size):
                place = self._gsi, base, size
            case KvmMemSlot(slot):
                place = self._mem_slots, slot, 1
            case MacAddress(address):
                place = self._macs, int(address.replace(":", ""), 16), 1
            case _:
                raise InvalidResource(type(resource).__name__, "no resource that an allocator knows")
        pool, base, size = place
        if base + size - 1 > pool.last:
            raise InvalidResource(str(resource), f"this machine has numbers up to {pool.last}")
        return place


def _gsi_kind(resource: Resource) -> object:
    return resource.ty if isinstance(resource, MsiIrq) else LegacyIrq


def _at(pool: IntervalPool, fixed: int | None, size: int, last: int) -> int | None:
    """The lowest free base up to `last`, or `fixed` itself where it is free, excluded or not."""
    if fixed is None:
        return pool.find(size, 1, 0, last)
    free = fixed + size - 1 <= pool.last and pool.holder(fixed, size) is None
    return fixed if free else None
