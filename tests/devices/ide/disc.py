"""A bootable disc: no more of ISO 9660 and El Torito than a BIOS looks at.

Source: "El Torito" Bootable CD-ROM Format Specification 1.0, sections 2.0 to 2.3.
"""

from __future__ import annotations

import struct

BLOCK = 2048
CATALOG, IMAGE = 20, 21


def bootable_disc(boot_image: bytes, blocks: int = 32) -> bytes:
    """A disc that boots `boot_image`, of up to 2 KiB, without emulation."""
    disc = bytearray(blocks * BLOCK)
    record = struct.pack("<B5sB32s32xI", 0, b"CD001", 1, b"EL TORITO SPECIFICATION", CATALOG)
    disc[17 * BLOCK : 17 * BLOCK + len(record)] = record
    validation = bytearray(struct.pack("<BB2x24sH2B", 1, 0, b"shardio", 0, 0x55, 0xAA))
    checksum = -sum(struct.unpack("<16H", validation)) & 0xFFFF
    struct.pack_into("<H", validation, 28, checksum)
    initial = struct.pack("<BBHBxHI20x", 0x88, 0, 0, 0, 4, IMAGE)  # no emulation, four sectors of 512 bytes
    disc[CATALOG * BLOCK : CATALOG * BLOCK + 64] = validation + initial
    disc[IMAGE * BLOCK : IMAGE * BLOCK + len(boot_image)] = boot_image
    return bytes(disc)
