"""coreboot payloads: an ELF of 32 bits, GRUB's i386-coreboot image say, and the table that coreboot leaves.

The payload begins at its entry in flat 32-bit protected mode. It looks for the table's header ("LBIO") in the
first 4 KiB and from 0xF0000 on (coreboot, src/commonlib/include/commonlib/coreboot_tables.h); the one record
here is the memory map.
"""

from __future__ import annotations

import struct
from typing import Final

from shardio.boot.elf import Elf
from shardio.boot.memory_map import packed
from shardio.boot.plan import Plan
from shardio.entry import Entry

TABLE: Final = 0xF_0000
_MEMORY: Final = 1
_HEADER: Final = "<4sIIIII"


def place_payload(plan: Plan, elf: Elf) -> Entry:
    """Adds the payload and its table to the plan. Raises `ImageError` for an image of 64 bits."""
    if elf.bits != 32:
        raise elf.image.refused("ELF class", 4, "1 (32 bits), a coreboot payload", "2 (64 bits)")
    elf.put(plan)
    ranges = packed(plan.memory, "<QQI")
    records = struct.pack("<II", _MEMORY, 8 + len(ranges)) + ranges
    size = struct.calcsize(_HEADER)
    sums = (0, len(records), internet_checksum(records), 1)
    header = struct.pack(_HEADER, b"LBIO", size, *sums)
    header = struct.pack(_HEADER, b"LBIO", size, internet_checksum(header), *sums[1:])
    plan.put("the coreboot table", TABLE, header + records)
    return Entry("protected", elf.entry)


def internet_checksum(data: bytes) -> int:
    """The checksum of RFC 1071, over little-endian words, as coreboot has it."""
    total: int = sum(struct.unpack(f"<{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
