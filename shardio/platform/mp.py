"""The MP table: processors, interrupt controllers and lines, for kernels without ACPI.

Source: Intel MultiProcessor Specification 1.4, chapter 4. It cannot tell of devices: those on the ISA bus are
known by their ports, virtio-mmio ones are named by `kernel_arguments`.
"""

from __future__ import annotations

import struct
from typing import Final

from shardio.platform.checksum import with_checksum
from shardio.platform.hardware import IO_APIC_PINS, ISA_LINES, PCI_HOST, Hardware
from shardio.reserved import IO_APIC, LOCAL_APIC

FLOATING_POINTER_SIZE: Final = 16

_SPECIFICATION: Final = 4  # 1.4
_APIC_VERSION: Final = 0x14  # an integrated APIC, as KVM's
_CPU_ENABLED, _CPU_BOOTSTRAP = 1, 2
_PCI_BUS: Final = 0  # kernels take the number of a PCI bus for its id here
_ALL_APICS: Final = 0xFF
_EDGE_HIGH, _LEVEL_HIGH = 0x0005, 0x000D  # polarity in bits 0-1, trigger mode in bits 2-3
_INT, _NMI, _EXTINT = 0, 1, 3
# Family 6, with an FPU and an APIC: kernels look at the processor itself.
_CPU_SIGNATURE, _CPU_FEATURES = 0x600, 0x201


def mp_table(hardware: Hardware, address: int) -> bytes:
    """The floating pointer and, behind it, the configuration table; both for guest address `address`, a
    multiple of 16 where kernels look (0xF0000 to 0xFFFFF).

    Raises ValueError for an address that is no multiple of 16, or above 4 GiB.
    """
    if address % 16 or not 0 <= address < 1 << 32:
        raise ValueError(
            f"an MP floating pointer at {address:#x} is not found; use a multiple of 16 below 4 GiB"
        )
    table = address + FLOATING_POINTER_SIZE
    pointer = struct.pack("<4sIBBBBBBBB", b"_MP_", table, 1, _SPECIFICATION, 0, 0, 0, 0, 0, 0)
    return with_checksum(pointer, 10) + _configuration(hardware)


def _configuration(hardware: Hardware) -> bytes:
    entries = [
        *_processors(hardware),
        *_buses(hardware),
        _io_apic(hardware),
        *_lines(hardware),
        *_pins(hardware),
        *_local_lines(hardware),
    ]
    body = b"".join(entries)
    header = struct.pack(
        "<4sHBB8s12sIHHIHBx",
        b"PCMP",
        44 + len(body),
        _SPECIFICATION,
        0,
        b"SHARDIO ",
        b"MACHINE     ",
        0,
        0,
        len(entries),
        LOCAL_APIC,
        0,
        0,
    )
    return with_checksum(header + body, 7)


def _processors(hardware: Hardware) -> list[bytes]:
    return [
        struct.pack(
            "<BBBBII8x",
            0,
            apic_id,
            _APIC_VERSION,
            _CPU_ENABLED | (0 if apic_id else _CPU_BOOTSTRAP),
            _CPU_SIGNATURE,
            _CPU_FEATURES,
        )
        for apic_id in range(hardware.vcpus)
    ]


def _buses(hardware: Hardware) -> list[bytes]:
    buses = [struct.pack("<BB6s", 1, _isa_bus(hardware), b"ISA   ")]
    if hardware.of(PCI_HOST):
        buses.insert(0, struct.pack("<BB6s", 1, _PCI_BUS, b"PCI   "))
    return buses


def _isa_bus(hardware: Hardware) -> int:
    return _PCI_BUS + 1 if hardware.of(PCI_HOST) else 0


def _io_apic(hardware: Hardware) -> bytes:
    return struct.pack("<BBBBI", 2, hardware.io_apic_id, 0x11, 1, IO_APIC)


def _lines(hardware: Hardware) -> list[bytes]:
    """ISA line n is pin n, as KVM routes it; lines above the ISA bus's where a device has one.

    A line that PCI pins alone are wired to is no ISA line: a kernel would take it for edge-triggered.
    """
    modes = {device.irq: device.level for device in hardware.devices if device.irq is not None}
    of_pci = {pin.gsi for pin in hardware.pins} - set(modes)
    lines = sorted({*range(ISA_LINES), *(line for line in modes if line < IO_APIC_PINS)} - of_pci)
    return [
        struct.pack(
            "<BBHBBBB",
            3,
            _INT,
            _LEVEL_HIGH if line in hardware.level_lines else _EDGE_HIGH,
            _isa_bus(hardware),
            line,
            hardware.io_apic_id,
            line,
        )
        for line in lines
        if line != 2  # the cascade of the two 8259s: no device can have it
    ]


def _pins(hardware: Hardware) -> list[bytes]:
    """INTA to INTD of each slot: the source is the slot in bits 2-6 and the pin in bits 0-1 (appendix D.3).
    """
    return [
        struct.pack(
            "<BBHBBBB",
            3,
            _INT,
            _LEVEL_HIGH,
            _PCI_BUS,
            pin.slot << 2 | pin.pin - 1,
            hardware.io_apic_id,
            pin.gsi,
        )
        for pin in hardware.pins
    ]


def _local_lines(hardware: Hardware) -> list[bytes]:
    """LINT0 of every local APIC is the 8259's, LINT1 is NMI."""
    return [
        struct.pack("<BBHBBBB", 4, kind, 0, _isa_bus(hardware), 0, _ALL_APICS, line)
        for line, kind in enumerate((_EXTINT, _NMI))
    ]
