"""Resources, constraints and the container of a device's resources."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from shardio import (
    DeviceResources,
    InvalidRange,
    InvalidResource,
    MmioRange,
    MsiIrqType,
    PioRange,
    Resource,
    ResourceConstraint,
)

ALL = [
    Resource.PioAddressRange(base=0, size=5),
    Resource.MmioAddressRange(base=0x1234_5678, size=0x8765_4321),
    Resource.LegacyIrq(0x168),
    Resource.MsiIrq(MsiIrqType.PCI_MSI, base=0x6666, size=0x8888),
    Resource.MsiIrq(MsiIrqType.PCI_MSIX, base=0x8888, size=0x1_6666),
    Resource.MsiIrq(MsiIrqType.GENERIC_MSI, base=0x1_6688, size=0x1_6888),
    Resource.MacAddress("00:08:63:66:86:88"),
    Resource.KvmMemSlot(0x100),
]


def test_each_getter_finds_its_own_kind() -> None:
    resources = DeviceResources(ALL)
    assert resources.get_pio_address_ranges() == [(0, 5)]
    assert resources.get_mmio_address_ranges() == [(0x1234_5678, 0x8765_4321)]
    assert resources.get_legacy_irq() == 0x168
    assert resources.get_pci_msi_irqs() == (0x6666, 0x8888)
    assert resources.get_pci_msix_irqs() == (0x8888, 0x1_6666)
    assert resources.get_generic_msi_irqs() == (0x1_6688, 0x1_6888)
    assert resources.get_mac_address() == "00:08:63:66:86:88"
    assert resources.get_kvm_mem_slots() == [0x100]
    assert resources.get_all_resources() == tuple(ALL)


def test_each_getter_finds_nothing_in_an_empty_container() -> None:
    resources = DeviceResources()
    assert resources.get_pio_address_ranges() == resources.get_mmio_address_ranges() == []
    assert resources.get_kvm_mem_slots() == []
    assert resources.get_legacy_irq() is None
    assert resources.get_pci_msi_irqs() is resources.get_pci_msix_irqs() is None
    assert resources.get_generic_msi_irqs() is None
    assert resources.get_mac_address() is None
    assert resources.get_all_resources() == ()


def test_getters_of_one_give_the_first_and_getters_of_many_give_all_in_order() -> None:
    resources = DeviceResources()
    for number in (7, 3):
        resources.append(Resource.LegacyIrq(number))
        resources.append(Resource.KvmMemSlot(number))
        resources.append(Resource.PioAddressRange(number, 1))
        resources.append(Resource.MmioAddressRange(number, 1))
    assert resources.get_legacy_irq() == 7
    assert resources.get_kvm_mem_slots() == [7, 3]
    assert resources.get_pio_address_ranges() == resources.get_mmio_address_ranges() == [(7, 1), (3, 1)]


def test_container_iterates_and_compares_by_content() -> None:
    assert list(DeviceResources(ALL)) == ALL
    assert len(DeviceResources(ALL)) == len(ALL)
    assert DeviceResources(ALL) == DeviceResources(iter(ALL))
    assert DeviceResources(ALL) != DeviceResources(ALL[1:])
    assert DeviceResources(ALL) != ALL


def test_resources_are_values() -> None:
    assert len({*ALL, Resource.LegacyIrq(0x168), Resource.KvmMemSlot(0x168)}) == len(ALL) + 1
    assert all(isinstance(resource, Resource) for resource in ALL)


def test_address_resources_know_their_bus_range() -> None:
    assert Resource.PioAddressRange(0x3F8, 8).range == PioRange(0x3F8, 8)
    assert Resource.MmioAddressRange(0, 1 << 64).range == MmioRange(0, 1 << 64)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Resource.PioAddressRange(0, 0),
        lambda: Resource.PioAddressRange(0xFFFF, 2),
        lambda: Resource.MmioAddressRange(0, 0),
        lambda: Resource.MmioAddressRange((1 << 64) - 1, 2),
    ],
)
def test_impossible_range_resource_cannot_be_made(make: Any) -> None:
    with pytest.raises(InvalidRange):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Resource.LegacyIrq(-1),
        lambda: Resource.LegacyIrq(1 << 32),
        lambda: Resource.KvmMemSlot(1 << 32),
        lambda: Resource.MsiIrq(MsiIrqType.PCI_MSI, 0, 0),
        lambda: Resource.MsiIrq(MsiIrqType.PCI_MSIX, (1 << 32) - 1, 2),
        lambda: Resource.MacAddress("00:08:63:66:86"),
        lambda: Resource.MacAddress("00-08-63-66-86-88"),
        lambda: Resource.MacAddress(b"00:08:63:66:86:88"),  # type: ignore[arg-type]
        lambda: Resource.MsiIrq("PCI MSI", 24, 1),  # type: ignore[arg-type]
        lambda: ResourceConstraint.pio_with_constraints(1, (5,), 1),  # type: ignore[arg-type]
        lambda: ResourceConstraint.pio_with_constraints(1, [5, 6], 1),  # type: ignore[arg-type]
        lambda: ResourceConstraint.new_pio(0),
        lambda: ResourceConstraint.new_pio((1 << 16) + 1),
        lambda: ResourceConstraint.new_mmio(0),
        lambda: ResourceConstraint.new_mmio((1 << 64) + 1),
        lambda: ResourceConstraint.pio_with_constraints(1, (5, 4), 1),
        lambda: ResourceConstraint.pio_with_constraints(1, (0, 1 << 16), 1),
        lambda: ResourceConstraint.mmio_with_constraints(1, (-1, 4), 1),
        lambda: ResourceConstraint.mmio_with_constraints(1, None, 0),
        lambda: ResourceConstraint.new_legacy_irq(-1),
        lambda: ResourceConstraint.new_kvm_mem_slot(0),
        lambda: ResourceConstraint.new_kvm_mem_slot(2, (1 << 32) - 1),
        lambda: ResourceConstraint.new_pci_msi_irq(0),
        lambda: ResourceConstraint.new_pci_msix_irq(0),
        lambda: ResourceConstraint.new_generic_irq(0),
    ],
)
def test_impossible_resource_or_constraint_cannot_be_made(make: Any) -> None:
    with pytest.raises(InvalidResource):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ResourceConstraint.new_pio(2.5),  # type: ignore[arg-type]
        lambda: ResourceConstraint.pio_with_constraints(2, (0.0, 8.0), 1),  # type: ignore[arg-type]
        lambda: ResourceConstraint.mmio_with_constraints(2, None, 4.0),  # type: ignore[arg-type]
        lambda: ResourceConstraint.new_pci_msix_irq(1.5),  # type: ignore[arg-type]
        lambda: ResourceConstraint.new_legacy_irq(1.5),  # type: ignore[arg-type]
        lambda: ResourceConstraint.new_kvm_mem_slot(1, 1.5),  # type: ignore[arg-type]
        lambda: Resource.LegacyIrq(1.5),  # type: ignore[arg-type]
        lambda: Resource.KvmMemSlot(1.5),  # type: ignore[arg-type]
        lambda: Resource.MsiIrq(MsiIrqType.PCI_MSI, 24.0, 1),  # type: ignore[arg-type]
        lambda: Resource.MsiIrq(MsiIrqType.PCI_MSI, 24, 1.0),  # type: ignore[arg-type]
    ],
)
def test_resource_or_constraint_of_no_whole_number_is_a_type_error(make: Any) -> None:
    with pytest.raises(TypeError):
        make()


def test_constructors_have_the_defaults_of_vm_device() -> None:
    pio, mmio = ResourceConstraint.new_pio(2), ResourceConstraint.new_mmio(0x2000)
    assert (pio.range, pio.align, pio.size) == (None, 1, 2)
    assert (mmio.range, mmio.align, mmio.size) == (None, 0x1000, 0x2000)
    assert ResourceConstraint.new_legacy_irq().irq is None
    slot = ResourceConstraint.new_kvm_mem_slot(3)
    assert (slot.slot, slot.size) == (None, 3)


def test_constructors_take_every_field() -> None:
    pio = ResourceConstraint.pio_with_constraints(2, (15, 16), 2)
    mmio = ResourceConstraint.mmio_with_constraints(0x2000, (0, 0x2000), 0x2000)
    assert pio == ResourceConstraint.PioAddress(range=(15, 16), align=2, size=2)
    assert mmio == ResourceConstraint.MmioAddress(range=(0, 0x2000), align=0x2000, size=0x2000)
    assert ResourceConstraint.new_legacy_irq(5) == ResourceConstraint.LegacyIrq(irq=5)
    assert ResourceConstraint.new_kvm_mem_slot(2, 7) == ResourceConstraint.KvmMemSlot(slot=7, size=2)
    assert ResourceConstraint.new_pci_msi_irq(4) == ResourceConstraint.PciMsiIrq(size=4)
    assert ResourceConstraint.new_pci_msix_irq(4) == ResourceConstraint.PciMsixIrq(size=4)
    assert ResourceConstraint.new_generic_irq(4) == ResourceConstraint.GenericIrq(size=4)


def test_a_container_holds_resources_only_and_its_copy_is_its_own() -> None:
    resources = DeviceResources([Resource.LegacyIrq(4)])
    other = copy.copy(resources)
    other.append(Resource.LegacyIrq(5))
    assert (len(resources), len(other)) == (1, 2)
    with pytest.raises(TypeError, match="no Resource"):
        resources.append((0x3F8, 8))  # type: ignore[arg-type]
