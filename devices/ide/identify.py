"""The 512 bytes by which a drive describes itself: IDENTIFY DEVICE and IDENTIFY PACKET DEVICE.

Source: ATA/ATAPI-6, clauses 8.15 and 8.16; words are little-endian, text is swapped within each word.
"""

from __future__ import annotations

import struct
from typing import Final

_LARGEST_28: Final = 0x0FFF_FFFF
_MOST_CYLINDERS: Final = 16383
_MOST_MULTIPLE: Final = 16
_REVISIONS: Final = 0x7E  # ATA-1 to ATA/ATAPI-6
_VERSION: Final = "1.0"


def geometry(sectors: int) -> int:
    """Cylinders of a disk of 16 heads and 63 sectors a track, as word 1 has them."""
    return min(_MOST_CYLINDERS, max(1, sectors // (16 * 63)))


def identify_disk(
    sectors: int, serial: str, *, heads: int, track: int, multiple: int, mode: int, write_cache: bool
) -> bytearray:
    """What a disk of `sectors` sectors answers; `heads` and `track` are the geometry in use, `multiple` and
    `mode` what SET MULTIPLE MODE and SET FEATURES chose.
    """
    words = _common(serial, "SHARDIO DISK", mode)
    cylinders = geometry(sectors)
    words[0] = 0x0040  # fixed
    words[1], words[3], words[6] = cylinders, 16, 63
    words[47] = 0x8000 | _MOST_MULTIPLE
    now = min(0xFFFF, max(1, sectors // (heads * track)))
    words[54], words[55], words[56] = now, heads, track
    _wide(words, 57, min(now * heads * track, sectors), 2)
    words[59] = 0x0100 | multiple if multiple else 0
    _wide(words, 60, min(sectors, _LARGEST_28), 2)
    words[82] = 0x0020  # write cache
    words[83] = 0x7400  # 48-bit addresses, FLUSH CACHE and FLUSH CACHE EXT
    words[84] = 0x4000
    words[85] = 0x0020 if write_cache else 0
    words[86], words[87] = 0x3400, 0x4000
    _wide(words, 100, sectors, 4)
    return _sealed(words)


def identify_packet(serial: str, *, mode: int) -> bytearray:
    """What a CD-ROM drive answers (clause 8.16)."""
    words = _common(serial, "SHARDIO CD-ROM", mode)
    words[0] = 0x8580  # ATAPI, CD-ROM, removable, DRQ within 50 us of PACKET, packets of 12 bytes
    words[82] = words[85] = 0x4210  # NOP, DEVICE RESET, PACKET
    words[83], words[84], words[87] = 0x4000, 0x4000, 0x4000
    return _sealed(words)


def _common(serial: str, model: str, mode: int) -> list[int]:
    words = [0] * 256
    _text(words, 10, serial, 20)
    _text(words, 23, _VERSION, 8)
    _text(words, 27, model, 40)
    words[49] = 0x0F00  # IORDY, LBA, DMA
    words[50] = 0x4000
    words[51], words[53] = 0x0200, 0x0007
    kind, number = mode >> 3, mode & 7
    words[63] = 0x0007 | (0x0100 << number if kind == 4 else 0)
    words[64] = 0x0003  # PIO modes 3 and 4
    words[65:69] = [120] * 4  # nanoseconds a cycle
    words[80] = _REVISIONS
    words[88] = 0x003F | (0x0100 << number if kind == 8 else 0)
    words[93] = 0x604B  # of a hardware reset: found by its jumper, on an 80-conductor cable
    return words


def _text(words: list[int], at: int, text: str, size: int) -> None:
    raw = text.encode("ascii").ljust(size)[:size]
    words[at : at + size // 2] = [word for (word,) in struct.iter_unpack(">H", raw)]


def _wide(words: list[int], at: int, value: int, count: int) -> None:
    words[at : at + count] = [value >> 16 * number & 0xFFFF for number in range(count)]


def _sealed(words: list[int]) -> bytearray:
    """With the integrity word (clause 8.15.61): all bytes come to 0."""
    data = bytearray(struct.pack("<256H", *words))
    data[510] = 0xA5
    data[511] = -sum(data[:511]) & 0xFF
    return data
