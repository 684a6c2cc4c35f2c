"""The packet commands of a CD-ROM drive: each takes 12 bytes, and gives data or fails with sense data.

Source: MMC-3 (T10/1363-D) for the commands, SPC-2 (T10/1236-D) for INQUIRY, REQUEST SENSE and the sense
codes. Reading sectors is the drive's (`cdrom`); this module answers what needs no image but its size.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

BLOCK: Final = 2048
"""Bytes of a logical block of a data CD."""

_TRACK_LEAD_OUT: Final = 0xAA
_DATA_TRACK: Final = 0x14  # ADR 1, control: a data track, recorded uninterrupted
_MSF_OFFSET: Final = 150  # block 0 is at 2 seconds


class Packet(IntEnum):
    """Operation codes."""

    TEST_UNIT_READY = 0x00
    REQUEST_SENSE = 0x03
    INQUIRY = 0x12
    MODE_SENSE_6 = 0x1A
    START_STOP_UNIT = 0x1B
    PREVENT_ALLOW_MEDIUM_REMOVAL = 0x1E
    READ_CAPACITY = 0x25
    READ_10 = 0x28
    SEEK_10 = 0x2B
    READ_TOC = 0x43
    GET_CONFIGURATION = 0x46
    GET_EVENT_STATUS_NOTIFICATION = 0x4A
    MODE_SENSE_10 = 0x5A
    READ_12 = 0xA8


class Refused(Exception):
    """A packet command fails: sense `key`, additional sense `code` and `qualifier` (SPC-2, 7.20)."""

    def __init__(self, key: int, code: int, qualifier: int = 0) -> None:
        super().__init__(f"sense {key:x}/{code:02x}/{qualifier:02x}")
        self.sense = key, code, qualifier


MEDIUM_ERROR: Final = (0x3, 0x11)
NO_SUCH_COMMAND: Final = (0x5, 0x20)
NO_SUCH_ADDRESS: Final = (0x5, 0x21)
INVALID_FIELD: Final = (0x5, 0x24)
PAGES_CANNOT_BE_SAVED: Final = (0x5, 0x39)


def answer(packet: bytes, blocks: int, sense: tuple[int, int, int]) -> bytes:
    """What the drive answers to `packet`; a disc of `blocks` is in it, `sense` is that of its last command.

    Raises Refused.
    """
    match packet[0]:
        case Packet.TEST_UNIT_READY | Packet.START_STOP_UNIT | Packet.PREVENT_ALLOW_MEDIUM_REMOVAL:
            return b""
        case Packet.SEEK_10:
            if int.from_bytes(packet[2:6], "big") >= blocks:
                raise Refused(*NO_SUCH_ADDRESS)
            return b""
        case Packet.REQUEST_SENSE:
            key, code, qualifier = sense
            return struct.pack(">BxBxxxxBxxxxBBxxxx", 0x70, key, 10, code, qualifier)[: packet[4]]
        case Packet.INQUIRY:
            return _inquiry(packet)
        case Packet.READ_CAPACITY:
            return struct.pack(">II", blocks - 1, BLOCK)
        case Packet.READ_TOC:
            return _table_of_contents(packet, blocks)
        case Packet.GET_CONFIGURATION:
            return _configuration(packet)
        case Packet.GET_EVENT_STATUS_NOTIFICATION:
            return _event(packet)
        case Packet.MODE_SENSE_6:
            page = _mode_page(packet)
            return (bytes((3 + len(page), 0x01, 0, 0)) + page)[: packet[4]]
        case Packet.MODE_SENSE_10:
            page = _mode_page(packet)
            return (struct.pack(">HBxxxxx", 6 + len(page), 0x01) + page)[: _allocation(packet)]
        case _:
            raise Refused(*NO_SUCH_COMMAND)


def extent(packet: bytes, blocks: int) -> tuple[int, int] | None:
    """The first block and the number of blocks of a READ; None for another command. Raises Refused."""
    if packet[0] == Packet.READ_10:
        first, count = struct.unpack_from(">IxH", packet, 2)
    elif packet[0] == Packet.READ_12:
        first, count = struct.unpack_from(">II", packet, 2)
    else:
        return None
    if first + count > blocks:
        raise Refused(*NO_SUCH_ADDRESS)
    return first, count


def _allocation(packet: bytes) -> int:
    return int.from_bytes(packet[7:9], "big")


def _inquiry(packet: bytes) -> bytes:
    """SPC-2, 7.3: a CD-ROM drive whose medium can be changed."""
    if packet[1] & 0x01 or packet[2]:
        raise Refused(*INVALID_FIELD)  # no vital product data
    text = b"SHARDIO ".ljust(8) + b"CD-ROM".ljust(16) + b"1.0".ljust(4)
    return (bytes((0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0)) + text)[: packet[4]]


def _table_of_contents(packet: bytes, blocks: int) -> bytes:
    """MMC-3, 5.23: one data track and the lead-out; or the one session."""
    in_minutes, first = packet[1] & 0x02, packet[6]
    kind = packet[2] & 0x0F or packet[9] >> 6  # older hosts have the format in the control byte

    def place(block: int) -> bytes:
        if not in_minutes:
            return block.to_bytes(4, "big")
        seconds, frame = divmod(block + _MSF_OFFSET, 75)
        return bytes((0, seconds // 60 & 0xFF, seconds % 60, frame))

    if kind == 1:
        body = bytes((1, 1, 0, _DATA_TRACK, 1, 0)) + place(0)
    elif kind == 0:
        if first > 1 and first != _TRACK_LEAD_OUT:
            raise Refused(*INVALID_FIELD)
        body = bytes((1, 1))
        if first <= 1:
            body += bytes((0, _DATA_TRACK, 1, 0)) + place(0)
        body += bytes((0, _DATA_TRACK, _TRACK_LEAD_OUT, 0)) + place(blocks)
    else:
        raise Refused(*INVALID_FIELD)
    return (len(body).to_bytes(2, "big") + body)[: _allocation(packet)]


def _configuration(packet: bytes) -> bytes:
    """MMC-3, 5.4: the current profile is CD-ROM; of features only the list of profiles is told."""
    profiles = bytes((0x00, 0x00, 0x03, 0x04, 0x00, 0x08, 0x01, 0x00))
    asked_from = int.from_bytes(packet[2:4], "big")
    features = b"" if asked_from else profiles
    return (struct.pack(">IxxH", 4 + len(features), 0x0008) + features)[: _allocation(packet)]


def _event(packet: bytes) -> bytes:
    """MMC-3, 5.5, polled: nothing has happened to the medium, which is there."""
    if not packet[1] & 0x01:
        raise Refused(*INVALID_FIELD)  # not polled
    if not packet[4] & 0x10:
        return bytes((0, 2, 0x80, 0x10))[: _allocation(packet)]  # no event class that is asked for
    return bytes((0, 6, 0x04, 0x10, 0x00, 0x02, 0, 0))[: _allocation(packet)]


def _mode_page(packet: bytes) -> bytes:
    """MMC-3, 6.3: error recovery (01h) and capabilities (2Ah), current or default values; 3Fh is both."""
    control, page = packet[2] >> 6, packet[2] & 0x3F
    if control == 3:
        raise Refused(*PAGES_CANNOT_BE_SAVED)
    recovery = bytes((0x01, 6, 0, 5, 0, 0, 0, 0))
    speed = struct.pack(">HHHH", 706, 0, 512, 706)  # KB/s, volume levels, KB of buffer, KB/s
    capabilities = bytes((0x2A, 18, 0x00, 0x00, 0x00, 0x00, 0x29, 0x00)) + speed + bytes(4)
    if control == 1:  # what can be changed: nothing
        recovery, capabilities = recovery[:2] + bytes(6), capabilities[:2] + bytes(18)
    pages = {0x01: recovery, 0x2A: capabilities, 0x3F: recovery + capabilities}
    if page not in pages:
        raise Refused(*INVALID_FIELD)
    return pages[page]
