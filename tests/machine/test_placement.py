"""Which shard gets a device, which CPU a process, and which addresses are taken."""

from __future__ import annotations

import os

import pytest

from shardio import DeviceOverlap, MachineError, MmioRange, PioRange
from shardio.machine.addresses import Addresses
from shardio.machine.placement import Placement, pins
from shardio.memory import MemoryRegion


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


def test_of_a_device_that_overlaps_nothing_is_claimed() -> None:
    addresses = Addresses([MemoryRegion(0, 0x1000, 0)])
    addresses.claim("a", [MmioRange(0x2000, 0x100)])
    with pytest.raises(DeviceOverlap):
        addresses.claim("b", [PioRange(0x80, 4), MmioRange(0x2000, 4)])

    addresses.claim("c", [PioRange(0x80, 4)])
    with pytest.raises(DeviceOverlap):
        addresses.claim("d", [PioRange(0x80, 4)])


def test_a_device_may_begin_where_the_ram_ends_and_not_before() -> None:
    addresses = Addresses([MemoryRegion(0, 0x1000, 0)])
    addresses.claim("a", [MmioRange(0x1000, 4)])

    with pytest.raises(MachineError, match="guest RAM"):
        addresses.claim("b", [MmioRange(0xFFF, 1)])
