"""The resources of one device, in the order in which they were given, with a getter for each kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self

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


class DeviceResources:
    """An ordered container of `Resource`; a device may have several of a kind.

    A copy is a container of its own. Raises `TypeError` for what is no `Resource`.

    >>> resources = DeviceResources([Resource.PioAddressRange(0x3F8, 8), Resource.LegacyIrq(4)])
    >>> resources.append(Resource.MsiIrq(MsiIrqType.PCI_MSIX, base=32, size=2))
    >>> resources.get_pio_address_ranges(), resources.get_legacy_irq(), resources.get_pci_msix_irqs()
    ([(1016, 8)], 4, (32, 2))
    >>> resources.get_mac_address() is None, len(resources)
    (True, 3)
    """

    def __init__(self, resources: Iterable[Resource] = ()) -> None:
        self._resources: list[Resource] = []
        for resource in resources:
            self.append(resource)

    def append(self, resource: Resource) -> None:
        """Add a resource at the end."""
        if not isinstance(resource, Resource):
            raise TypeError(f"{resource!r} is no Resource")
        self._resources.append(resource)

    def get_pio_address_ranges(self) -> list[tuple[int, int]]:
        """(base, size in ports) of every PIO range."""
        return [(r.base, r.size) for r in self._resources if isinstance(r, PioAddressRange)]

    def get_mmio_address_ranges(self) -> list[tuple[int, int]]:
        """(base, size in bytes) of every MMIO range."""
        return [(r.base, r.size) for r in self._resources if isinstance(r, MmioAddressRange)]

    def get_legacy_irq(self) -> int | None:
        """The first legacy interrupt, or None."""
        return next((r.irq for r in self._resources if isinstance(r, LegacyIrq)), None)

    def get_pci_msi_irqs(self) -> tuple[int, int] | None:
        """(base, count) of the first PCI MSI interrupts, or None."""
        return self._msi_irqs(MsiIrqType.PCI_MSI)

    def get_pci_msix_irqs(self) -> tuple[int, int] | None:
        """(base, count) of the first PCI MSI-X interrupts, or None."""
        return self._msi_irqs(MsiIrqType.PCI_MSIX)

    def get_generic_msi_irqs(self) -> tuple[int, int] | None:
        """(base, count) of the first generic message-signalled interrupts, or None."""
        return self._msi_irqs(MsiIrqType.GENERIC_MSI)

    def get_kvm_mem_slots(self) -> list[int]:
        """Every KVM memory slot index."""
        return [r.slot for r in self._resources if isinstance(r, KvmMemSlot)]

    def get_mac_address(self) -> str | None:
        """The first MAC address, or None."""
        return next((r.address for r in self._resources if isinstance(r, MacAddress)), None)

    def get_all_resources(self) -> tuple[Resource, ...]:
        """All of them, in order."""
        return tuple(self._resources)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._resources)

    def __len__(self) -> int:
        return len(self._resources)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeviceResources) and self._resources == other._resources

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __copy__(self) -> Self:
        return type(self)(self._resources)

    def __repr__(self) -> str:
        return f"DeviceResources({self._resources!r})"

    def _msi_irqs(self, ty: MsiIrqType) -> tuple[int, int] | None:
        return next(((r.base, r.size) for r in self._resources if isinstance(r, MsiIrq) and r.ty is ty), None)
