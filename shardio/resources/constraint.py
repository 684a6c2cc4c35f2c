"""What a device asks for: constraints that the VMM's allocator turns into resources.

The constructors on `ResourceConstraint` and their defaults are those of vm-device: ports on any address,
memory on page boundaries. The variants are attributes of `ResourceConstraint` too.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import ClassVar

from shardio.address import MmioAddress, PioAddress
from shardio.errors import InvalidResource
from shardio.resources.resource import U32_MAX


@dataclass(frozen=True)
class ResourceConstraint:
    """Base of the constraint variants, with a constructor for each.

    All raise `InvalidResource` for what nothing can ever meet, `TypeError` for what is no whole number.

    >>> ResourceConstraint.new_mmio(0x2000)
    MmioAddressConstraint(range=None, align=4096, size=8192)
    >>> ResourceConstraint.new_pio(8)
    PioAddressConstraint(range=None, align=1, size=8)
    >>> ResourceConstraint.new_legacy_irq().irq is None
    True
    """

    PioAddress: ClassVar[type[PioAddressConstraint]]
    MmioAddress: ClassVar[type[MmioAddressConstraint]]
    LegacyIrq: ClassVar[type[LegacyIrqConstraint]]
    PciMsiIrq: ClassVar[type[PciMsiIrqConstraint]]
    PciMsixIrq: ClassVar[type[PciMsixIrqConstraint]]
    GenericIrq: ClassVar[type[GenericIrqConstraint]]
    KvmMemSlot: ClassVar[type[KvmMemSlotConstraint]]

    @staticmethod
    def new_pio(size: int) -> PioAddressConstraint:
        """`size` ports anywhere, on any address."""
        return PioAddressConstraint(None, 1, size)

    @staticmethod
    def pio_with_constraints(size: int, range: tuple[int, int] | None,  # noqa: A002 (vm-device's name)
                             align: int) -> PioAddressConstraint:
        """`size` ports within `range` (first, last; None for anywhere), begun at a multiple of `align`."""
        return PioAddressConstraint(range, align, size)

    @staticmethod
    def new_mmio(size: int) -> MmioAddressConstraint:
        """`size` bytes anywhere, on a page boundary (4096)."""
        return MmioAddressConstraint(None, 0x1000, size)

    @staticmethod
    def mmio_with_constraints(size: int, range: tuple[int, int] | None,  # noqa: A002
                              align: int) -> MmioAddressConstraint:
        """`size` bytes within `range` (first, last; None for anywhere), begun at a multiple of `align`."""
        return MmioAddressConstraint(range, align, size)

    @staticmethod
    def new_legacy_irq(irq: int | None = None) -> LegacyIrqConstraint:
        """The legacy interrupt `irq`, or any one."""
        return LegacyIrqConstraint(irq)

    @staticmethod
    def new_pci_msi_irq(size: int) -> PciMsiIrqConstraint:
        """`size` consecutive PCI MSI interrupts."""
        return PciMsiIrqConstraint(size)

    @staticmethod
    def new_pci_msix_irq(size: int) -> PciMsixIrqConstraint:
        """`size` consecutive PCI MSI-X interrupts."""
        return PciMsixIrqConstraint(size)

    @staticmethod
    def new_generic_irq(size: int) -> GenericIrqConstraint:
        """`size` consecutive message-signalled interrupts of no bus."""
        return GenericIrqConstraint(size)

    @staticmethod
    def new_kvm_mem_slot(size: int, slot: int | None = None) -> KvmMemSlotConstraint:
        """`size` consecutive KVM memory slots, from index `slot` on or anywhere."""
        return KvmMemSlotConstraint(slot, size)


@dataclass(frozen=True)
class PioAddressConstraint(ResourceConstraint):
    """`size` ports within `range` (first and last port, both inclusive), `base % align == 0`.

    >>> PioAddressConstraint(range=(0x2F8, 0x3FF), align=8, size=8).range
    (760, 1023)
    """

    range: tuple[int, int] | None
    align: int
    size: int

    def __post_init__(self) -> None:
        _require_interval("PIO constraint", self.range, self.align, self.size, PioAddress.LAST)


@dataclass(frozen=True)
class MmioAddressConstraint(ResourceConstraint):
    """`size` bytes within `range` (first and last address, both inclusive), `base % align == 0`.

    >>> MmioAddressConstraint(range=None, align=0, size=0x1000)
    Traceback (most recent call last):
    ...
    shardio.errors.InvalidResource: MMIO constraint: alignment 0; give at least 1
    """

    range: tuple[int, int] | None
    align: int
    size: int

    def __post_init__(self) -> None:
        _require_interval("MMIO constraint", self.range, self.align, self.size, MmioAddress.LAST)


@dataclass(frozen=True)
class LegacyIrqConstraint(ResourceConstraint):
    """The legacy interrupt `irq`, or any one for None.

    >>> LegacyIrqConstraint(), LegacyIrqConstraint(4)
    (LegacyIrqConstraint(irq=None), LegacyIrqConstraint(irq=4))
    """

    irq: int | None = None

    def __post_init__(self) -> None:
        if self.irq is not None and not 0 <= operator.index(self.irq) <= U32_MAX:
            raise InvalidResource("legacy IRQ constraint", f"{self.irq} is not a 32-bit unsigned number")


@dataclass(frozen=True)
class PciMsiIrqConstraint(ResourceConstraint):
    """`size` consecutive PCI MSI interrupts.

    >>> ResourceConstraint.new_pci_msi_irq(4)
    PciMsiIrqConstraint(size=4)
    """

    size: int

    def __post_init__(self) -> None:
        _require_count("PCI MSI constraint", self.size)


@dataclass(frozen=True)
class PciMsixIrqConstraint(ResourceConstraint):
    """`size` consecutive PCI MSI-X interrupts.

    >>> ResourceConstraint.new_pci_msix_irq(4)
    PciMsixIrqConstraint(size=4)
    """

    size: int

    def __post_init__(self) -> None:
        _require_count("PCI MSI-X constraint", self.size)


@dataclass(frozen=True)
class GenericIrqConstraint(ResourceConstraint):
    """`size` consecutive message-signalled interrupts of no bus.

    >>> ResourceConstraint.new_generic_irq(4)
    GenericIrqConstraint(size=4)
    """

    size: int

    def __post_init__(self) -> None:
        _require_count("generic MSI constraint", self.size)


@dataclass(frozen=True)
class KvmMemSlotConstraint(ResourceConstraint):
    """`size` consecutive KVM memory slots, the first of them `slot`, or anywhere for None.

    >>> ResourceConstraint.new_kvm_mem_slot(2)
    KvmMemSlotConstraint(slot=None, size=2)
    """

    slot: int | None
    size: int

    def __post_init__(self) -> None:
        _require_count("KVM memory slot constraint", self.size)
        if self.slot is not None and not 0 <= operator.index(self.slot) <= U32_MAX + 1 - self.size:
            raise InvalidResource("KVM memory slot constraint",
                                  f"{self.size} from {self.slot} on are not 32-bit unsigned numbers")


ResourceConstraint.PioAddress = PioAddressConstraint
ResourceConstraint.MmioAddress = MmioAddressConstraint
ResourceConstraint.LegacyIrq = LegacyIrqConstraint
ResourceConstraint.PciMsiIrq = PciMsiIrqConstraint
ResourceConstraint.PciMsixIrq = PciMsixIrqConstraint
ResourceConstraint.GenericIrq = GenericIrqConstraint
ResourceConstraint.KvmMemSlot = KvmMemSlotConstraint


def _require_interval(what: str, interval: tuple[int, int] | None, align: int, size: int, limit: int) -> None:
    if interval is not None and not (isinstance(interval, tuple) and len(interval) == 2):
        raise InvalidResource(what, f"range {interval!r}; give a tuple of its first and last address")
    for number in (align, size, *(interval or ())):
        operator.index(number)
    if not 1 <= size <= limit + 1:
        raise InvalidResource(what, f"size {size}; give 1 to {limit + 1}")
    if align < 1:
        raise InvalidResource(what, f"alignment {align}; give at least 1")
    if interval is not None and not 0 <= interval[0] <= interval[1] <= limit:
        raise InvalidResource(what, f"range {interval}; give its first and last address, at most {limit:#x}")


def _require_count(what: str, size: int) -> None:
    operator.index(size)
    if not 1 <= size <= U32_MAX + 1:
        raise InvalidResource(what, f"size {size}; give at least 1")
