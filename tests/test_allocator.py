"""The allocator: against a brute force over every base of a small space, and its rules one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shardio import (
    InvalidResource,
    MmioRange,
    MsiIrqType,
    PioRange,
    Resource,
    ResourceAllocator,
    ResourceConflict,
    ResourceConstraint,
    ResourceNotAllocated,
    ResourceUnavailable,
)
from shardio.resources.pool import IntervalPool
from tests.models import attempt

# The port space's end is the space's end; the rest is taken from the start so that the two models stay small.
FIRST, LAST = 0xFFD0, 0xFFFF
ports = st.integers(FIRST, LAST)
sizes = st.integers(1, 12)
aligns = st.sampled_from([1, 2, 3, 4, 8, 16, 0x100])


class BruteForce:
    """Sets of single ports; every base is tried in turn."""

    def __init__(self) -> None:
        self.taken: dict[int, Any] = {}
        self.excluded: set[int] = set()

    def span(self, resource: Any) -> range:
        return range(resource.base, resource.base + resource.size)

    def allocate(self, constraint: Any) -> list[tuple[int, int]]:
        first, last = constraint.range
        for base in range(first, last + 1):
            span = range(base, base + constraint.size)
            free = not any(port in self.taken or port in self.excluded for port in span)
            if base % constraint.align == 0 and span[-1] <= last and free:
                self.reserve(Resource.PioAddressRange(base, constraint.size))
                return [(base, constraint.size)]
        raise ResourceUnavailable(constraint)

    def reserve(self, resource: Any) -> None:
        for port in self.span(resource):
            if port in self.taken:
                held = self.span(self.taken[port])
                raise ResourceConflict(resource, held[0], held[-1])
        self.taken.update(dict.fromkeys(self.span(resource), resource))

    def release(self, resource: Any) -> None:
        if self.taken.get(resource.base) != resource:
            raise ResourceNotAllocated(resource)
        for port in self.span(resource):
            del self.taken[port]


class AllocatorAgainstBruteForce(RuleBasedStateMachine):
    """The same calls on both: same bases, same errors with the same values."""

    def __init__(self) -> None:
        super().__init__()
        self.allocator = ResourceAllocator()
        self.brute = BruteForce()

    @rule(a=ports, b=ports, align=aligns, size=sizes)
    def allocate(self, a: int, b: int, align: int, size: int) -> None:
        wanted = ResourceConstraint.pio_with_constraints(size, (min(a, b), max(a, b)), align)
        got = attempt(lambda: self.allocator.allocate(wanted).get_pio_address_ranges())
        assert got == attempt(lambda: self.brute.allocate(wanted))

    @rule(base=ports, size=sizes)
    def reserve(self, base: int, size: int) -> None:
        fixed = Resource.PioAddressRange(base, min(size, LAST + 1 - base))
        assert attempt(lambda: self.allocator.reserve(fixed)) == attempt(lambda: self.brute.reserve(fixed))

    @rule(base=ports, size=sizes)
    def exclude(self, base: int, size: int) -> None:
        fixed = Resource.PioAddressRange(base, min(size, LAST + 1 - base))
        self.allocator.exclude(fixed)
        self.brute.excluded.update(self.brute.span(fixed))

    @rule(base=ports, size=sizes)
    def release_something(self, base: int, size: int) -> None:
        fixed = Resource.PioAddressRange(base, min(size, LAST + 1 - base))
        assert attempt(lambda: self.allocator.release(fixed)) == attempt(lambda: self.brute.release(fixed))

    @rule(base=ports)
    def release_what_is_there(self, base: int) -> None:
        held = self.brute.taken.get(base, Resource.PioAddressRange(base, 1))
        assert attempt(lambda: self.allocator.release(held)) == attempt(lambda: self.brute.release(held))

    @invariant()
    def taken_ports_are_the_same(self) -> None:
        every = [Resource.PioAddressRange(port, 1) for port in range(FIRST, LAST + 1)]
        free = [attempt(lambda port=port: self.allocator.reserve(port)) is None for port in every]
        self.allocator.release(*[port for port, was_free in zip(every, free, strict=True) if was_free])
        assert free == [port.base not in self.brute.taken for port in every]


AllocatorAgainstBruteForce.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
TestAllocatorAgainstBruteForce = AllocatorAgainstBruteForce.TestCase

KINDS = st.sampled_from(
    [
        ResourceConstraint.new_pio(8),
        ResourceConstraint.new_mmio(0x1800),
        ResourceConstraint.new_legacy_irq(),
        ResourceConstraint.new_pci_msi_irq(3),
        ResourceConstraint.new_pci_msix_irq(2),
        ResourceConstraint.new_generic_irq(1),
        ResourceConstraint.new_kvm_mem_slot(2),
    ]
)


@given(st.lists(KINDS, max_size=15))
def test_allocation_is_deterministic_and_release_undoes_it(wanted: list[ResourceConstraint]) -> None:
    allocator = ResourceAllocator()
    first = allocator.allocate(*wanted)
    allocator.release(*first)
    assert allocator.allocate(*wanted) == first == ResourceAllocator().allocate(*wanted)


@given(st.lists(KINDS, max_size=15))
def test_nothing_is_handed_out_twice(wanted: list[ResourceConstraint]) -> None:
    got = ResourceAllocator().allocate(*wanted)
    fresh = ResourceAllocator()
    fresh.reserve(*got)
    assert len(set(got)) == len(got)


def test_windows_bound_what_has_no_range() -> None:
    allocator = ResourceAllocator(pio_window=PioRange(0x1000, 8), mmio_window=MmioRange(0xD000_0800, 0x2000))
    got = allocator.allocate(ResourceConstraint.new_pio(8), ResourceConstraint.new_mmio(0x1000))
    assert got.get_pio_address_ranges() == [(0x1000, 8)]
    assert got.get_mmio_address_ranges() == [(0xD000_1000, 0x1000)]
    with pytest.raises(ResourceUnavailable):
        allocator.allocate(ResourceConstraint.new_pio(1))
    with pytest.raises(ResourceUnavailable):
        allocator.allocate(ResourceConstraint.new_mmio(0x1000))


def test_a_range_may_lie_outside_the_window_and_end_with_the_space() -> None:
    top = (1 << 64) - 0x2000
    wanted = ResourceConstraint.mmio_with_constraints(0x1000, (top, (1 << 64) - 1), 0x1000)
    got = ResourceAllocator().allocate(wanted, wanted)
    assert got.get_mmio_address_ranges() == [(top, 0x1000), (top + 0x1000, 0x1000)]


def test_whole_space_can_be_one_resource() -> None:
    allocator = ResourceAllocator(mmio_window=MmioRange(0, 1 << 64))
    got = allocator.allocate(ResourceConstraint.new_mmio(1 << 64))
    assert got.get_mmio_address_ranges() == [(0, 1 << 64)]
    with pytest.raises(ResourceUnavailable):
        allocator.allocate(ResourceConstraint.new_mmio(1))


def test_lines_and_messages_share_one_number_space() -> None:
    allocator = ResourceAllocator()
    got = allocator.allocate(
        ResourceConstraint.new_legacy_irq(),
        ResourceConstraint.new_pci_msix_irq(4),
        ResourceConstraint.new_generic_irq(1),
    )
    assert (got.get_pci_msix_irqs(), got.get_generic_msi_irqs()) == ((24, 4), (28, 1))
    assert got.get_legacy_irq() == 5
    with pytest.raises(ResourceConflict):
        allocator.reserve(Resource.LegacyIrq(25))


def test_lines_run_out_before_messages_do() -> None:
    allocator = ResourceAllocator(legacy_irqs=6, excluded_irqs=(), gsis=8)
    wanted = [ResourceConstraint.new_legacy_irq()] * 6
    assert [resource.irq for resource in allocator.allocate(*wanted)] == [0, 1, 2, 3, 4, 5]  # type: ignore[attr-defined]
    with pytest.raises(ResourceUnavailable):
        allocator.allocate(wanted[0])
    assert allocator.allocate(ResourceConstraint.new_pci_msi_irq(2)).get_pci_msi_irqs() == (6, 2)
    with pytest.raises(ResourceUnavailable):
        allocator.allocate(ResourceConstraint.new_pci_msi_irq(1))


def test_a_named_irq_may_be_an_excluded_one_once() -> None:
    allocator = ResourceAllocator()
    com1 = ResourceConstraint.new_legacy_irq(4)
    assert allocator.allocate(com1).get_legacy_irq() == 4
    with pytest.raises(ResourceUnavailable) as refused:
        allocator.allocate(com1)
    assert refused.value.constraint == com1


def test_memory_slots_are_consecutive_and_released_one_by_one() -> None:
    allocator = ResourceAllocator(kvm_mem_slots=4)
    allocator.reserve(Resource.KvmMemSlot(1))
    assert allocator.allocate(ResourceConstraint.new_kvm_mem_slot(2)).get_kvm_mem_slots() == [2, 3]
    with pytest.raises(ResourceUnavailable):
        allocator.allocate(ResourceConstraint.new_kvm_mem_slot(2, 0))
    allocator.release(Resource.KvmMemSlot(1))
    assert allocator.allocate(ResourceConstraint.new_kvm_mem_slot(2, 0)).get_kvm_mem_slots() == [0, 1]


def test_failed_allocation_takes_nothing() -> None:
    allocator = ResourceAllocator()
    impossible = ResourceConstraint.pio_with_constraints(4, (0x10, 0x12), 1)
    with pytest.raises(ResourceUnavailable) as refused:
        allocator.allocate(ResourceConstraint.new_pio(8), ResourceConstraint.new_kvm_mem_slot(3), impossible)
    assert refused.value.constraint == impossible
    assert allocator.allocate(ResourceConstraint.new_pio(8)) == ResourceAllocator().allocate(
        ResourceConstraint.new_pio(8)
    )
    assert allocator.allocate(ResourceConstraint.new_kvm_mem_slot(1)).get_kvm_mem_slots() == [0]


def test_failed_reservation_takes_nothing() -> None:
    allocator, com1 = ResourceAllocator(), Resource.PioAddressRange(0x3F8, 8)
    with pytest.raises(ResourceConflict) as refused:
        allocator.reserve(Resource.LegacyIrq(7), com1, Resource.PioAddressRange(0x3F0, 9))
    assert refused.value.taken == (0x3F8, 0x3FF)
    allocator.reserve(Resource.LegacyIrq(7), Resource.PioAddressRange(0x3F0, 16))


def test_failed_release_gives_nothing_back() -> None:
    allocator = ResourceAllocator()
    allocator.reserve(Resource.LegacyIrq(7), Resource.PioAddressRange(0x3F8, 8))
    with pytest.raises(ResourceNotAllocated) as refused:
        allocator.release(Resource.LegacyIrq(7), Resource.PioAddressRange(0x3F8, 7))
    assert refused.value.resource == Resource.PioAddressRange(0x3F8, 7)
    with pytest.raises(ResourceConflict):
        allocator.reserve(Resource.LegacyIrq(7))


def test_a_mac_address_has_one_owner() -> None:
    allocator = ResourceAllocator()
    allocator.reserve(Resource.MacAddress("52:54:00:AB:CD:EF"))
    with pytest.raises(ResourceConflict):
        allocator.reserve(Resource.MacAddress("52:54:00:ab:cd:ef"))


@pytest.mark.parametrize(
    "resource",
    [Resource.LegacyIrq(4096), Resource.MsiIrq(MsiIrqType.PCI_MSI, 4095, 2), Resource.KvmMemSlot(509)],
)
@pytest.mark.parametrize("verb", ["reserve", "release", "exclude"])
def test_numbers_that_the_machine_does_not_have_are_refused(resource: Resource, verb: str) -> None:
    with pytest.raises(InvalidResource, match="this machine has numbers up to"):
        getattr(ResourceAllocator(), verb)(resource)


def test_an_interrupt_is_released_as_the_kind_that_was_taken() -> None:
    allocator = ResourceAllocator()
    got = allocator.allocate(ResourceConstraint.new_pci_msi_irq(1))
    (base, size), kinds = got.get_pci_msi_irqs() or (0, 0), MsiIrqType
    for other in (Resource.LegacyIrq(base), Resource.MsiIrq(kinds.PCI_MSIX, base, size)):
        with pytest.raises(ResourceNotAllocated):
            allocator.release(other)
    allocator.release(*got)


@pytest.mark.parametrize("window", [{"pio_window": MmioRange(0, 1)}, {"mmio_window": PioRange(0, 1)}])
def test_a_window_of_the_other_space_is_a_type_error(window: Any) -> None:
    with pytest.raises(TypeError, match="belongs"):
        ResourceAllocator(**window)


def test_a_pool_ends_at_its_last_number_whatever_is_searched() -> None:
    pool = IntervalPool(last=9)

    assert (pool.find(10, 1, 0, 99), pool.find(1, 1, 9, 99), pool.find(1, 1, 10, 99)) == (0, 9, None)


def test_the_last_memory_slot_can_be_asked_for_by_its_number() -> None:
    allocator = ResourceAllocator(kvm_mem_slots=4)

    assert allocator.allocate(ResourceConstraint.new_kvm_mem_slot(2, slot=2)).get_kvm_mem_slots() == [2, 3]
    with pytest.raises(ResourceUnavailable):
        allocator.allocate(ResourceConstraint.new_kvm_mem_slot(1, slot=4))


def test_the_last_32_bit_slot_is_a_constraint() -> None:
    assert ResourceConstraint.new_kvm_mem_slot(2, slot=2**32 - 2).slot == 2**32 - 2
    with pytest.raises(InvalidResource):
        ResourceConstraint.new_kvm_mem_slot(2, slot=2**32 - 1)
