"""ACPI tables as files of fw_cfg, for firmware that publishes what its machine offers: SeaBIOS does.

The firmware chooses where the tables lie. A script, the file `etc/table-loader`, tells it which files to
load, which of their words are addresses in another one, and which bytes are checksums.

Source: QEMU's hw/acpi/bios-linker-loader.c, which is where the format is described.
"""

from __future__ import annotations

import struct
from typing import Final

from shardio.platform.acpi import lay_out, rsdp
from shardio.platform.hardware import Hardware

TABLES: Final = "etc/acpi/tables"
RSDP: Final = "etc/acpi/rsdp"
LOADER: Final = "etc/table-loader"

_ENTRY_BYTES: Final = 128
_ALLOCATE, _ADD_POINTER, _ADD_CHECKSUM = 1, 2, 3
_HIGH, _F_SEGMENT = 1, 2
# Where addresses and checksums are: ACPI 6.5, sections 5.2.5.3 (RSDP), 5.2.6 (headers), 5.2.9 (FADT).
_RSDP_XSDT, _RSDP_CHECKSUMS = 24, ((8, 20), (32, 36))
_HEADER_BYTES, _LENGTH, _CHECKSUM = 36, 4, 9
_FADT_DSDT: Final = ((40, 4), (140, 8))


def acpi_files(hardware: Hardware) -> dict[str, bytes]:
    """The three files by name."""
    image = bytearray()
    _, fadt, *others, xsdt = lay_out(hardware, 0, image)
    pointers = [(fadt + at, size) for at, size in _FADT_DSDT]
    pointers += [(xsdt + _HEADER_BYTES + 8 * number, 8) for number in range(1 + len(others))]
    script = [_allocate(TABLES, 64, _HIGH), _allocate(RSDP, 16, _F_SEGMENT)]
    script += [_pointer(TABLES, at, size) for at, size in pointers]
    script += [
        _checksum(TABLES, table + _CHECKSUM, table, *struct.unpack_from("<I", image, table + _LENGTH))
        for table in (fadt, xsdt)
    ]
    script.append(_pointer(RSDP, _RSDP_XSDT, 8))
    script += [_checksum(RSDP, at, 0, length) for at, length in _RSDP_CHECKSUMS]
    return {TABLES: bytes(image), RSDP: rsdp(xsdt), LOADER: b"".join(script)}


def _entry(command: int, layout: str, *values: object) -> bytes:
    return struct.pack(f"<I{layout}", command, *values).ljust(_ENTRY_BYTES, b"\0")


def _allocate(file: str, alignment: int, zone: int) -> bytes:
    return _entry(_ALLOCATE, "56sIB", file.encode(), alignment, zone)


def _pointer(file: str, at: int, size: int) -> bytes:
    """Add the address of the tables to the word there."""
    return _entry(_ADD_POINTER, "56s56sIB", file.encode(), TABLES.encode(), at, size)


def _checksum(file: str, at: int, start: int, length: int) -> bytes:
    """Set the byte there so that those from `start` on add up to 0."""
    return _entry(_ADD_CHECKSUM, "56sIII", file.encode(), at, start, length)
