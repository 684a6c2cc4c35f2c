"""coreboot's table as a payload finds it: header and memory record, both with sums of their own."""

from __future__ import annotations

import struct

from shardio.boot import load_payload
from shardio.boot.coreboot import internet_checksum
from shardio.memory import GuestMemory
from tests.boot.images import Part, elf32

AT = 0x10_0000


def folded(data: bytes) -> int:
    """The sum of little-endian words, carries added (RFC 1071): 0xffff where a checksum is among them."""
    total = sum(struct.unpack(f"<{len(data) // 2}H", data))
    return (total & 0xFFFF) + (total >> 16)


def test_the_table_tells_of_memory(memory: GuestMemory) -> None:
    load_payload(memory, elf32(Part(b"\xf4", AT), entry=AT))

    signature, size, _, table_size, checksum, entries = struct.unpack("<4sIIIII", memory.read(0xF_0000, 24))
    table = memory.read(0xF_0000 + size, table_size)
    assert (signature, size, entries) == (b"LBIO", 24, 1)
    assert folded(memory.read(0xF_0000, size)) == 0xFFFF
    assert internet_checksum(table) == checksum
    assert struct.unpack("<II", table[:8]) == (1, len(table))
    ranges = [struct.unpack_from("<QQI", table, at) for at in range(8, len(table), 20)]
    assert ranges == [(0, 0xA0000, 1), (0xA0000, 0x60000, 2), (AT, 0x30_0000, 1)]


def test_the_checksum_is_that_of_rfc_1071() -> None:
    # Section 3's example, whose words are big-endian: the sum is the same but for the order of its bytes.
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x0D22
