"""Which shard gets a device, which CPU a process, and which addresses are taken."""

from __future__ import annotations

import gc
import os

import pytest

from shardio import DeviceOverlap, Dispatcher, MmioRange, PioRange, RangeTaken
from shardio.dispatcher.placement import Placement, Shard, pins
from shardio.errors import MachineError
from shardio.memory import MemoryRegion
from shardio.reserved import reserved_by_kvm
from shardio.routing import AddressMap


def test_a_device_goes_where_the_fewest_are() -> None:
    placement = Placement(["a", "b", "c"], ())

    assert [placement.place(None) for _ in range(4)] == [(0,), (1,), (2,), (0,)]


def test_a_device_that_is_gone_makes_room() -> None:
    placement = Placement(["a", "b"], ())
    devices = [placement.place(None) for _ in range(4)]
    placement.release(devices[1])
    placement.release(devices[3])

    assert [placement.place(None) for _ in range(3)] == [(1,), (1,), (0,)]


def test_workers_come_first_and_shards_have_the_next_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 5, 7})

    assert pins(None, 2, [None, None]) == ([2, 3], [5, 7])
    assert pins(None, 2, [None, 9, None]) == ([None, None], [None, 9, None])
    assert pins(True, 3, [9, None]) == ([2, 3, 5], [9, 2])


def table(irqchip: bool | str = True) -> AddressMap:
    """A machine's, with a page of RAM."""
    return AddressMap(
        regions=[MemoryRegion(0, 0x1000, 0)], reserved=lambda span: reserved_by_kvm(span, irqchip)
    )


def test_of_a_device_that_overlaps_nothing_is_claimed() -> None:
    addresses = table()
    addresses.claim("a", [MmioRange(0x2000, 0x100)])
    with pytest.raises(DeviceOverlap):
        addresses.claim("b", [PioRange(0x80, 4), MmioRange(0x2000, 4)])

    addresses.claim("c", [PioRange(0x80, 4)])
    with pytest.raises(DeviceOverlap):
        addresses.claim("d", [PioRange(0x80, 4)])


def test_a_device_may_begin_where_the_ram_ends_and_not_before() -> None:
    addresses = table()
    addresses.claim("a", [MmioRange(0x1000, 4)])

    with pytest.raises(RangeTaken, match="guest RAM") as refused:
        addresses.claim("b", [MmioRange(0xFFF, 1)])
    assert (refused.value.device, refused.value.requested) == ("b", MmioRange(0xFFF, 1))


@pytest.mark.parametrize(
    ("irqchip", "span", "parts"),
    [
        (True, PioRange(0x20, 2), ["in-kernel PIC", "[0x20, 0x21]", 'irqchip: false or "split"']),
        (True, PioRange(0x1C, 5), ["in-kernel PIC"]),
        (True, PioRange(0xA1, 4), ["in-kernel PIC"]),
        (True, PioRange(0x4D0, 2), ["in-kernel PIC"]),
        (True, PioRange(0x40, 4), ["in-kernel PIT"]),
        (True, PioRange(0x61, 1), ["in-kernel PIT"]),
        (True, MmioRange(0xFEC0_0000, 0x1000), ["in-kernel IOAPIC", 'irqchip: false or "split"']),
        (True, MmioRange(0xFEE0_0FFC, 4), ["in-kernel local APIC", "irqchip: false"]),
        ("split", MmioRange(0xFEE0_0000, 0x1000), ["in-kernel local APIC", "irqchip: false"]),
        (False, MmioRange(0xFEFF_F000, 0x1000), ["real mode", "place it elsewhere"]),
    ],
)
def test_where_kvm_answers_a_device_is_refused(
    irqchip: bool | str, span: PioRange | MmioRange, parts: list[str]
) -> None:
    addresses = table(irqchip)

    with pytest.raises(RangeTaken) as refused:
        addresses.claim("a", [PioRange(0x300, 4), span])
    addresses.claim("b", [PioRange(0x300, 4)])

    assert [part for part in parts if part not in str(refused.value)] == []


@pytest.mark.parametrize(
    ("irqchip", "span"),
    [
        (True, PioRange(0x60, 5)),
        (True, PioRange(0x22, 0x1E)),
        (True, PioRange(0, 0x10000)),
        (True, MmioRange(0xE000_0000, 0x1FF0_0000)),
        (True, MmioRange(0xFEC0_0100, 0x100)),
        (True, MmioRange(0xFEE0_1000, 0x1000)),
        ("split", PioRange(0x20, 2)),
        ("split", MmioRange(0xFEC0_0000, 0x1000)),
        (False, PioRange(0x40, 4)),
        (False, MmioRange(0xFEE0_0000, 0x1000)),
    ],
)
def test_beside_and_around_what_kvm_answers_devices_are_taken(
    irqchip: bool | str, span: PioRange | MmioRange
) -> None:
    table(irqchip).claim("a", [span])


def test_one_shard_in_two_machines_is_an_error() -> None:
    shard = Shard("counters")
    told = "shard 'counters' is another dispatcher's"
    with Dispatcher(shards=[shard]), pytest.raises(MachineError, match=told):
        Dispatcher(shards=["other", shard])


def test_a_shard_may_be_used_again_when_its_machine_is_closed_or_gone() -> None:
    shard = Shard("counters")
    Dispatcher(shards=[shard]).close()
    Dispatcher(shards=[shard])
    gc.collect()

    with Dispatcher(shards=[shard]), Dispatcher(shards=[Shard("counters")]):
        pass
