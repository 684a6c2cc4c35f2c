"""`shardio.devices.virtio.pci_function`: what a PCI driver finds in configuration space, and the BAR."""

from __future__ import annotations

from itertools import pairwise

import pytest

from shardio.devices.pci_config import BAR0, COMMAND, COMMAND_MEMORY
from shardio.devices.pci_host import PciHost, bdf
from shardio.devices.virtio.pci_common import (
    DRIVER_FEATURE,
    DRIVER_FEATURE_SELECT,
    NUM_QUEUES,
    QUEUE_DESC,
    QUEUE_SIZE,
    STATUS,
)
from tests.devices.virtio.guest import ACKNOWLEDGE
from tests.devices.virtio.pci_guest import BASE, COMMON, DEVICE_CONFIG, ISR, LINE, NOTIFY, WINDOW, PciGuest


def test_the_function_says_what_it_is(pci: PciGuest) -> None:
    assert pci.config.config_read(0, 4) == 0x1044_1AF4
    assert pci.config.config_read(8, 1) >= 1
    assert pci.config.config_read(0x3D, 1) == 1
    assert pci.config.config_read(6, 2) & 0x10


def test_every_structure_is_in_the_bar(pci: PciGuest) -> None:
    assert set(pci.virtio) == {COMMON, NOTIFY, ISR, DEVICE_CONFIG, WINDOW}
    assert all(each.offset + each.length <= pci.device.mmio_size for each in pci.virtio.values())
    assert pci.virtio[COMMON].length >= 0x38


def test_the_structures_do_not_overlap(pci: PciGuest) -> None:
    spans = sorted((each.offset, each.offset + each.length) for each in pci.virtio.values() if each.length)

    assert all(one[1] <= other[0] for one, other in pairwise(spans))


def test_the_bar_tells_its_size(pci: PciGuest) -> None:
    pci.config.config_write(BAR0, 4, 0xFFFFFFFF)

    assert pci.config.config_read(BAR0, 4) == 0x1_0000_0000 - pci.device.mmio_size


def test_it_answers_behind_a_pci_host(pci: PciGuest) -> None:
    ports = PciHost()
    ports.add_function(bdf(0, 3), pci.config)
    ports.write(0, 4, 0x8000_0000 | bdf(0, 3) << 8)

    assert ports.read(4, 4) == 0x1044_1AF4


def test_without_decoding_the_bar_reads_all_ones(pci: PciGuest) -> None:
    pci.config.config_write(COMMAND, 2, 0)

    assert pci.get(NUM_QUEUES, 2) == 0xFFFF


def test_without_decoding_the_bar_drops_writes(pci: PciGuest) -> None:
    pci.config.config_write(COMMAND, 2, 0)
    pci.set(STATUS, 1, ACKNOWLEDGE)
    pci.config.config_write(COMMAND, 2, COMMAND_MEMORY)

    assert pci.get(STATUS, 1) == 0


def test_a_moved_bar_is_told(pci: PciGuest) -> None:
    moves: list[int | None] = []
    pci.device.on_bar = moves.append
    pci.config.config_write(COMMAND, 2, 0)
    pci.config.config_write(BAR0, 4, BASE + 0x10000)
    pci.config.config_write(COMMAND, 2, COMMAND_MEMORY)

    assert moves == [None, BASE + 0x10000]


def test_the_window_reads_the_bar(pci: PciGuest) -> None:
    window = pci.virtio[WINDOW].at
    pci.config.config_write(window + 4, 1, 0)
    pci.config.config_write(window + 8, 4, pci.virtio[COMMON].offset + NUM_QUEUES)
    pci.config.config_write(window + 12, 4, 2)

    assert pci.config.config_read(window + 16, 2) == 1


def test_the_window_writes_the_bar(pci: PciGuest) -> None:
    window = pci.virtio[WINDOW].at
    pci.config.config_write(window + 8, 4, pci.virtio[COMMON].offset + STATUS)
    pci.config.config_write(window + 12, 4, 1)
    pci.config.config_write(window + 16, 1, ACKNOWLEDGE)

    assert pci.get(STATUS, 1) == ACKNOWLEDGE


@pytest.mark.parametrize(
    ("bar", "offset", "length"),
    [(1, 0x12, 2), (0, 0x4000, 2), (0, 0x13, 2), (0, 0x12, 4), (0, 0xFFFFFFFF, 2)],
)
def test_an_improper_window_reaches_nothing(pci: PciGuest, bar: int, offset: int, length: int) -> None:
    window = pci.virtio[WINDOW].at
    pci.config.config_write(window + 4, 1, bar)
    pci.config.config_write(window + 8, 4, offset)
    pci.config.config_write(window + 12, 4, length)
    pci.config.config_write(window + 16, 2, 0x5A5A)

    assert pci.config.config_read(window + 16, 2) == 0x5A5A  # the driver's own bytes, nothing of the BAR's


@pytest.mark.parametrize(
    ("field", "length", "expected"), [(STATUS, 1, 0x0B), (NUM_QUEUES, 2, 0x0001), (QUEUE_DESC, 4, 0x1000)]
)
def test_a_wide_read_of_the_window_gives_the_first_cap_length_bytes(
    pci: PciGuest, field: int, length: int, expected: int
) -> None:
    """virtio 1.2, section 4.1.4.9.1: the device reads cap.length bytes of the BAR into pci_cfg_data."""
    pci.set(STATUS, 1, 0)
    pci.set(STATUS, 1, 3)
    pci.set(DRIVER_FEATURE_SELECT, 4, 1)
    pci.set(DRIVER_FEATURE, 4, 1)
    pci.set(STATUS, 1, 0x0B)
    pci.set(QUEUE_DESC, 4, 0x1000)
    window = pci.virtio[WINDOW].at
    pci.config.config_write(window + 8, 4, pci.virtio[COMMON].offset + field)
    pci.config.config_write(window + 12, 4, length)

    seen = pci.config.config_read(window + 16, 4)

    assert seen & ((1 << 8 * length) - 1) == expected


@pytest.mark.parametrize(
    ("field", "length", "written", "expected"),
    [(STATUS, 1, 0xFFFF_FF03, 3), (QUEUE_SIZE, 2, 0xFFFF_0010, 16), (QUEUE_DESC, 4, 0x2000, 0x2000)],
)
def test_a_wide_write_of_the_window_writes_the_first_cap_length_bytes(
    pci: PciGuest, field: int, length: int, written: int, expected: int
) -> None:
    """virtio 1.2, section 4.1.4.9.1: the device writes the first cap.length bytes of pci_cfg_data."""
    window = pci.virtio[WINDOW].at
    pci.config.config_write(window + 8, 4, pci.virtio[COMMON].offset + field)
    pci.config.config_write(window + 12, 4, length)
    pci.config.config_write(window + 16, 4, written)

    assert pci.get(field, length) == expected


def test_the_interrupt_line_register_tells_the_line(pci: PciGuest) -> None:
    assert pci.config.config_read(0x3C, 2) == 1 << 8 | LINE
