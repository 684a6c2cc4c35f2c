"""What options make of a device, as tables tell it: the pins behind a PCI bridge and where they are wired
to.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from shardio.devices import PciBus, Uart16550
from shardio.memory import GuestMemory
from shardio.platform import Hardware, PciPin, PlatformDevice, described, place_tables
from tests.platform.reading import read_acpi, read_dsdt, read_mp

PINS = (PciPin(1, 1, 11), PciPin(2, 1, 11), PciPin(3, 2, 20))
PCI = PlatformDevice("pci", "pci-host-cam-generic", 0xCF8, 8, pio=True, pins=PINS)
WINDOW = PlatformDevice("pci", "pci-host-cam-generic", 0xE000_0000, 0x100_0000, pins=PINS)
COM1 = PlatformDevice("com1", "ns16550a", 0x3F8, 8, pio=True, irq=4)
LEVEL_HIGH = 0x000D


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    """Guest RAM."""
    with GuestMemory(2 << 20) as made:
        yield made


def hardware(memory: GuestMemory, *devices: PlatformDevice) -> Hardware:
    """A machine with one vCPU and these devices."""
    return Hardware(1, memory.regions, devices)


def test_mp_table_routes_every_pin_of_pci(memory: GuestMemory) -> None:
    """MPS 1.4, section 4.3.4 and appendix D.3: source irq is slot << 2 | pin, INTA being 0."""
    place_tables("mp", hardware(memory, PCI, WINDOW), memory)

    interrupts = read_mp(memory).interrupts
    of_pci = [entry for entry in interrupts if entry[2] == 0]
    isa_lines = [line for _, _, bus, line, _, _ in interrupts if bus == 1]

    assert of_pci == [
        (0, LEVEL_HIGH, 0, 1 << 2, 1, 11),
        (0, LEVEL_HIGH, 0, 2 << 2, 1, 11),
        (0, LEVEL_HIGH, 0, 3 << 2 | 1, 1, 20),
    ]
    assert isa_lines == [n for n in range(16) if n not in (2, 11)]


def test_mp_table_keeps_the_isa_line_that_a_device_shares_with_a_pin(memory: GuestMemory) -> None:
    shares = PlatformDevice("shares", "virtio,mmio", 0xD000_0000, 0x1000, irq=11, level=True)
    place_tables("mp", hardware(memory, PCI, shares), memory)

    assert (0, LEVEL_HIGH, 1, 11, 1, 11) in read_mp(memory).interrupts


def test_dsdt_routes_every_pin_of_pci(memory: GuestMemory) -> None:
    """ACPI 6.5, section 6.2.13: slot in the high half, INTA as 0, and a link device that tells the line."""
    place_tables("acpi", hardware(memory, PCI, WINDOW), memory)

    devices = read_dsdt(read_acpi(memory)["DSDT"])

    assert devices["PCI0"].values["_PRT"] == [
        [0x1FFFF, 0, "L00B", 0],
        [0x2FFFF, 0, "L00B", 0],
        [0x3FFFF, 1, "L014", 0],
    ]
    for name, gsi in (("L00B", 11), ("L014", 20)):
        link = devices[name]
        assert link.values["_UID"] == gsi
        assert link.resources == [(0x89, struct.pack("<BBI", 0x09, 1, gsi))]
        assert link.values["_PRS"] == link.values["_CRS"]
        assert link.values["_SRS"] == b"\x01"


def test_dsdt_without_pci_has_no_link_device(memory: GuestMemory) -> None:
    place_tables("acpi", hardware(memory, COM1), memory)

    assert set(read_dsdt(read_acpi(memory)["DSDT"])) == {"C000", "COM1"}


def test_a_pin_that_no_io_apic_pin_can_take_is_left_out(memory: GuestMemory) -> None:
    beyond = PlatformDevice("pci", "pci-host-cam-generic", 0xCF8, 8, pio=True, pins=(PciPin(1, 1, 24),))

    assert hardware(memory, beyond).pins == ()


def test_a_bridge_tells_of_its_functions_pins() -> None:
    rng = "shardio.devices.virtio:VirtioPciRng"
    functions = [{"type": rng}, {"type": rng, "slot": 7, "line": 10}, {"type": rng}]

    told = described(PciBus, {"functions": functions})

    assert told == {"pins": (PciPin(1, 1, 11), PciPin(7, 1, 10), PciPin(3, 1, 11))}


def test_a_uart_tells_of_its_stride() -> None:
    assert described(Uart16550, {"stride": 4, "output": "null"}) == {"reg_shift": 2}
    assert described(Uart16550, {}) == {"reg_shift": 0}


def test_a_class_without_a_description_tells_nothing() -> None:
    assert described(object, {"any": 1}) == {}
