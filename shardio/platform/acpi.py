"""ACPI tables: RSDP, XSDT, FADT, MADT, an HPET table where there is one, and a DSDT with the devices that a
kernel cannot find by itself.

Source: ACPI 6.5, chapter 5; IA-PC HPET specification 1.0a, section 3.2.4. The machine is a hardware-reduced
one (ACPI section 4.1): no power management block, no SMI, no SCI. So a kernel takes its timers from the
processors, and its interrupts from the APICs.
"""

from __future__ import annotations

import struct
from typing import Final

from shardio.platform import aml
from shardio.platform.checksum import with_checksum
from shardio.platform.hardware import (
    HPET,
    ISA_LINES,
    KEYBOARD,
    PCI_HOST,
    POWER,
    RTC,
    UART,
    VIRTIO_MMIO,
    Hardware,
    PciPin,
    PlatformDevice,
)
from shardio.reserved import IO_APIC, LOCAL_APIC

_RSDP_SIZE: Final = 36
_FADT_SIZE: Final = 276
_BOOT_LEGACY, _BOOT_8042, _BOOT_NO_VGA, _BOOT_NO_RTC = 1 << 0, 1 << 1, 1 << 2, 1 << 5
_WBINVD, _NO_POWER_BUTTON, _NO_SLEEP_BUTTON = 1 << 0, 1 << 4, 1 << 5
_TIMER_32_BITS, _RESET_REGISTER, _HARDWARE_REDUCED = 1 << 8, 1 << 10, 1 << 20
_SYSTEM_MEMORY: Final = 0
_SYSTEM_IO: Final = 1
_RESET_PORT, _RESET_VALUE = 0x64, 0xFE  # the keyboard controller pulses the reset line
# Of the device AcpiPower: offsets of its registers (`devices/acpi_power.py`), and what they take.
_SLEEP_CONTROL, _SLEEP_STATUS, _POWER_RESET, _TIMER = 0, 1, 2, 4
_POWER_RESET_VALUE, _SOFT_OFF = 1, 5
_MOUSE_LINE: Final = 12
_PORTS_BELOW: Final = (0x0000, 0x0CF8)
_PORTS_ABOVE: Final = (0x0D00, 0xF300)
_PCAT_COMPATIBLE: Final = 1  # there are two 8259s as well
_LEVEL_HIGH: Final = 0x000D
_HPET_BLOCK: Final = 0x8086A201
"""Of the device Hpet: the low word of its capabilities."""
_HPET_SHORTEST: Final = 20_000
"""Ticks of 10 ns below which it does not interrupt periodically."""


def acpi_tables(hardware: Hardware, address: int) -> bytes:
    """All tables, in one piece for guest address `address`; the RSDP comes first. `address` is a multiple of
    16 where kernels look for it (0xE0000 to 0xFFFFF).

    Raises ValueError for an address that is no multiple of 16, or above 4 GiB.
    """
    if address % 16 or not 0 <= address < 1 << 32:
        raise ValueError(f"an RSDP at {address:#x} is not found; use a multiple of 16 below 4 GiB")
    image = bytearray(_RSDP_SIZE)
    tables = lay_out(hardware, address, image)
    image[:_RSDP_SIZE] = rsdp(tables[-1])
    return bytes(image)


def lay_out(hardware: Hardware, address: int, image: bytearray) -> list[int]:
    """Put the tables behind what is in `image`, which is for guest address `address`: the addresses of DSDT,
    FADT, the others and, last, the XSDT.
    """

    def put(table: bytes) -> int:
        image.extend(bytes(-len(image) % 16))
        image.extend(table)
        return address + len(image) - len(table)

    dsdt = put(_table(b"DSDT", 2, _dsdt(hardware)))
    tables = [put(_fadt(hardware, dsdt)), put(_table(b"APIC", 5, _madt(hardware)))]
    tables += [put(_hpet(number, each)) for number, each in enumerate(hardware.of(HPET))]
    return [dsdt, *tables, put(_table(b"XSDT", 1, struct.pack(f"<{len(tables)}Q", *tables)))]


def rsdp(xsdt: int) -> bytes:
    """The root pointer, to the XSDT at that address."""
    first = struct.pack("<8sB6sBI", b"RSD PTR ", 0, b"SHARD ", 2, 0)
    whole = with_checksum(first, 8) + struct.pack("<IQB3x", _RSDP_SIZE, xsdt, 0)
    return with_checksum(whole, 32)


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    header = struct.pack(
        "<4sIBB6s8sI4sI",
        signature,
        36 + len(body),
        revision,
        0,
        b"SHARD ",
        b"SHARDIO ",
        1,
        b"SHRD",
        1,
    )
    return with_checksum(header + body, 9)


def _fadt(hardware: Hardware, dsdt: int) -> bytes:
    keyboard, clock = hardware.of(KEYBOARD), hardware.of(RTC)
    boot = _BOOT_LEGACY | _BOOT_NO_VGA
    boot |= (_BOOT_8042 if keyboard else 0) | (0 if clock else _BOOT_NO_RTC)
    flags = _WBINVD | _NO_POWER_BUTTON | _NO_SLEEP_BUTTON | _HARDWARE_REDUCED
    body = bytearray(_FADT_SIZE)
    struct.pack_into("<I", body, 40, dsdt)
    struct.pack_into("<H", body, 109, boot)
    power = [each.base for each in hardware.of(POWER)]
    if power or keyboard:
        port, value = (power[0] + _POWER_RESET, _POWER_RESET_VALUE) if power else (_RESET_PORT, _RESET_VALUE)
        flags |= _RESET_REGISTER
        struct.pack_into("<12sB", body, 116, _port(port, 1), value)
    if power:
        struct.pack_into("<I", body, 76, power[0] + _TIMER)
        body[91] = 4
        struct.pack_into("<12s", body, 208, _port(power[0] + _TIMER, 4))
        flags |= _TIMER_32_BITS
        for at, offset in ((244, _SLEEP_CONTROL), (256, _SLEEP_STATUS)):
            struct.pack_into("<12s", body, at, _port(power[0] + offset, 1))
    struct.pack_into("<I", body, 112, flags)
    body[108] = 0x32 if clock else 0  # where the century is in CMOS
    body[131] = 5  # 6.5: revision 6, minor 5
    struct.pack_into("<Q", body, 140, dsdt)
    struct.pack_into("<8s", body, 268, b"KVM")
    return _table(b"FACP", 6, bytes(body[36:]))


def _port(address: int, size: int) -> bytes:
    """A generic address structure (section 5.2.3.2): a register of `size` (1, 2 or 4) bytes."""
    return struct.pack("<BBBBQ", _SYSTEM_IO, 8 * size, 0, size.bit_length(), address)


def _madt(hardware: Hardware) -> bytes:
    processors = [struct.pack("<BBBBI", 0, 8, number, number, 1) for number in range(hardware.vcpus)]
    io_apic = struct.pack("<BBBxII", 1, 12, hardware.io_apic_id, IO_APIC, 0)
    overrides = [
        struct.pack("<BBBBIH", 2, 10, 0, line, line, _LEVEL_HIGH)
        for line in sorted(hardware.level_lines)
        if line < ISA_LINES
    ]
    nmi = struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)
    return struct.pack("<II", LOCAL_APIC, _PCAT_COMPATIBLE) + b"".join(
        [*processors, io_apic, *overrides, nmi]
    )


def _hpet(number: int, device: PlatformDevice) -> bytes:
    """The description table of an event timer block: no page protection."""
    address = struct.pack("<BBBBQ", _SYSTEM_MEMORY, 64, 0, 0, device.base)
    return _table(b"HPET", 1, struct.pack("<I12sBHB", _HPET_BLOCK, address, number, _HPET_SHORTEST, 0))


def _dsdt(hardware: Hardware) -> bytes:
    terms = [
        aml.device(f"C{number:03X}", _id("ACPI0007"), _number(number)) for number in range(hardware.vcpus)
    ]
    terms += [
        aml.device(f"V{number:03X}", _id("LNRO0005"), _number(number), _resources(each))
        for number, each in enumerate(hardware.of(VIRTIO_MMIO))
    ]
    terms += [
        aml.device(f"COM{number}", _plug_and_play("PNP0501"), _number(number), _resources(each))
        for number, each in enumerate(_uarts(hardware), 1)
    ]
    terms += [
        aml.device(label, _plug_and_play(kind), _resources(each))
        for compatible, label, kind in ((RTC, "RTC", "PNP0B00"), (KEYBOARD, "KBD", "PNP0303"))
        for each in hardware.of(compatible)[:1]
    ]
    terms += [
        aml.device(f"HPT{number}", _plug_and_play("PNP0103"), _number(number), _resources(each))
        for number, each in enumerate(hardware.of(HPET))
    ]
    if hardware.of(KEYBOARD):  # which has a mouse too; a kernel looks for one only where it is told
        line = aml.name("_CRS", aml.resources(aml.isa_interrupt(_MOUSE_LINE)))
        terms.append(aml.device("MOU", _plug_and_play("PNP0F13"), line))
    terms += [_link(gsi) for gsi in sorted({pin.gsi for pin in hardware.pins})]
    if bridge := hardware.of(PCI_HOST):
        terms.append(_pci(bridge, hardware.pins))
    off = aml.name("_S5", aml.package(*map(aml.integer, (_SOFT_OFF, 0, 0, 0)))) if hardware.of(POWER) else b""
    return aml.scope("_SB", *terms) + off


def _uarts(hardware: Hardware) -> list[PlatformDevice]:
    """Those that a PNP0501 can be: it has no way to tell that registers are more than a byte apart."""
    return [each for each in hardware.of(UART) if not each.reg_shift]


def _link(gsi: int) -> bytes:
    """An interrupt link device (section 6.2.13): a line that PCI pins are wired to, which cannot be
    changed. It says that the line is active high; of one that `_PRT` named by number a kernel would believe
    the contrary.
    """
    line = aml.resources(aml.interrupt(gsi, level=True))
    return aml.device(
        _link_name(gsi),
        _plug_and_play("PNP0C0F"),
        _number(gsi),
        aml.name("_PRS", line),
        aml.name("_CRS", line),
        aml.method("_SRS", 1),
    )


def _link_name(gsi: int) -> str:
    return f"L{gsi:03X}"


def _pci(ranges: tuple[PlatformDevice, ...], pins: tuple[PciPin, ...]) -> bytes:
    """The host bridge: its configuration ports, the window in which BARs may lie, all other ports, and where
    interrupt pins go (section 6.2.13).
    """
    descriptors = [aml.bus_numbers(0, 0xFF)]
    descriptors += [
        aml.ports(each.base, each.size) if each.pio else aml.memory_window(each.base, each.size)
        for each in ranges
    ]
    descriptors += [aml.port_window(*window) for window in (_PORTS_BELOW, _PORTS_ABOVE)]
    crs = aml.name("_CRS", aml.resources(*descriptors))
    routes = [
        aml.package(
            aml.integer(pin.slot << 16 | 0xFFFF),
            aml.integer(pin.pin - 1),
            aml.reference(_link_name(pin.gsi)),
            aml.integer(0),
        )
        for pin in pins
    ]
    return aml.device(
        "PCI0", _plug_and_play("PNP0A03"), _number(0), crs, aml.name("_PRT", aml.package(*routes))
    )


def _id(text: str) -> bytes:
    return aml.name("_HID", aml.string(text))


def _plug_and_play(text: str) -> bytes:
    return aml.name("_HID", aml.eisa_id(text))


def _number(value: int) -> bytes:
    return aml.name("_UID", aml.integer(value))


def _resources(device: PlatformDevice) -> bytes:
    """The device's range and line. A keyboard controller's is two single ports: between them is another's."""
    descriptors = []
    if device.compatible == KEYBOARD:
        descriptors += [aml.ports(device.base, 1), aml.ports(device.base + 4, 1)]
    elif device.pio:
        descriptors.append(aml.ports(device.base, device.size))
    elif device.base + device.size <= 1 << 32:
        descriptors.append(aml.memory32(device.base, device.size))
    else:
        descriptors.append(aml.memory64(device.base, device.size))
    if device.irq is not None:
        on_isa = device.pio and device.irq < ISA_LINES and not device.level
        line = aml.isa_interrupt(device.irq) if on_isa else aml.interrupt(device.irq, level=device.level)
        descriptors.append(line)
    return aml.name("_CRS", aml.resources(*descriptors))
