"""A CD-ROM drive: the PACKET command (ATA/ATAPI-6 clauses 8.22, 9.8) and MMC-3's packets."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardio.devices.ide.registers import ABRT, DRQ, ERR, READY
from shardio.errors import DeviceOptionError, ImageError
from tests.devices.ide.conftest import BLOCKS, Images
from tests.devices.ide.guest import IdeGuest, ide_guest

BLOCK = 2048


def read_10(lba: int, count: int) -> bytes:
    return struct.pack(">BBIBH", 0x28, 0, lba, 0, count)


def read_12(lba: int, count: int) -> bytes:
    return struct.pack(">BBII", 0xA8, 0, lba, count)


def sense(cd: IdeGuest) -> tuple[int, int, int]:
    data, _ = cd.packet(0x03, 0, 0, 0, 18)
    return data[2], data[12], data[13]


def test_identify_packet_device(cd: IdeGuest) -> None:
    data = cd.read_sectors(0xA1, 1)
    word = struct.unpack("<256H", data)

    assert word[0] == 0x8580  # clause 8.16.8: ATAPI, CD-ROM, removable, 12-byte packets
    assert word[49] & 0x0300 == 0x0300
    assert sum(data) & 0xFF == 0


@pytest.mark.parametrize("code", [0xEC, 0x20])
def test_a_disks_commands_are_aborted_with_the_signature(cd: IdeGuest, code: int) -> None:
    cd.address(5, 5)

    assert cd.command(code) & ERR
    assert cd.error == ABRT
    assert (cd.get(4), cd.get(5)) == (0x14, 0xEB)


def test_writes_are_aborted(cd: IdeGuest) -> None:
    assert cd.command(0x30) & ERR
    assert cd.error == ABRT
    _, status = cd.packet(0x2A, 0, 0, 0, 0, 0, 0, 0, 1)  # WRITE(10)
    assert status & ERR
    assert cd.error >> 4 == 0x5


@pytest.mark.parametrize("limit", [0, 2048, 2050, 4096, 0xFFFE, 0xFFFF])
@pytest.mark.parametrize("packet", [read_10, read_12])
@pytest.mark.parametrize(("lba", "count"), [(0, 1), (3, 5), (BLOCKS - 1, 1), (0, BLOCKS), (4, 0)])
def test_blocks_are_read(
    cd: IdeGuest, images: Images, packet: object, lba: int, count: int, limit: int
) -> None:
    data, status = cd.packet(*packet(lba, count), limit=limit)  # type: ignore[operator]

    assert status == READY
    assert cd.get(2) == 3  # clause 9.8: status phase
    assert data == images.blocks[lba * BLOCK : (lba + count) * BLOCK]


@pytest.mark.parametrize("packet", [read_10(BLOCKS, 1), read_12(BLOCKS - 1, 2), read_12(0xFFFF_FFFF, 1)])
def test_blocks_past_the_end_are_an_illegal_request(cd: IdeGuest, packet: bytes) -> None:
    _, status = cd.packet(*packet)

    assert status == READY | ERR
    assert cd.error == 0x50 | ABRT
    assert sense(cd) == (0x5, 0x21, 0)
    assert sense(cd) == (0, 0, 0)  # it is told once


def test_an_unknown_packet_is_an_illegal_request(cd: IdeGuest) -> None:
    _, status = cd.packet(0xFF)

    assert status & ERR
    assert sense(cd) == (0x5, 0x20, 0)


def test_the_drive_is_ready_and_tells_what_it_is(cd: IdeGuest) -> None:
    assert cd.packet(0x00) == (b"", READY)
    inquiry, _ = cd.packet(0x12, 0, 0, 0, 36)
    assert (inquiry[0], inquiry[1], inquiry[8:16]) == (0x05, 0x80, b"SHARDIO ")
    assert len(cd.packet(0x12, 0, 0, 0, 5)[0]) == 5
    assert cd.packet(0x25)[0] == struct.pack(">II", BLOCKS - 1, BLOCK)
    assert cd.packet(0x1B, 0, 0, 0, 1) == (b"", READY)
    assert cd.packet(0x1E, 0, 0, 0, 1) == (b"", READY)


def test_the_table_of_contents_has_one_data_track(cd: IdeGuest) -> None:
    toc, _ = cd.packet(0x43, 0, 0, 0, 0, 0, 0, 0x0F, 0xFF)
    assert toc == bytes((0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xAA, 0, 0, 0, 0, BLOCKS))
    minutes, _ = cd.packet(0x43, 2, 0, 0, 0, 0, 0xAA, 0, 12)
    assert minutes[8:] == bytes((0, 0, 2, BLOCKS))  # block 0 is at 0:2:0
    session, _ = cd.packet(0x43, 0, 1, 0, 0, 0, 0, 0, 12)
    assert session == bytes((0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0))
    assert cd.packet(0x43, 0, 0, 0, 0, 0, 7, 0, 12)[1] & ERR


@pytest.mark.parametrize(("packet", "header"), [
    ((0x5A, 0, 0x2A, 0, 0, 0, 0, 0, 64), 8), ((0x1A, 0, 0x2A, 0, 64), 4),
])  # fmt: skip
def test_mode_sense_gives_the_capabilities_page(cd: IdeGuest, packet: tuple[int, ...], header: int) -> None:
    data, status = cd.packet(*packet)

    assert status == READY
    assert data[header] == 0x2A
    assert len(data) == header + 2 + data[header + 1]
    assert cd.packet(packet[0], 0, 0xC0 | 0x2A, 0, 64, 0, 0, 0, 64)[1] & ERR
    assert sense(cd) == (0x5, 0x39, 0)


def test_events_and_configuration(cd: IdeGuest) -> None:
    assert cd.packet(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8)[0] == bytes((0, 6, 4, 0x10, 0, 2, 0, 0))
    assert cd.packet(0x4A, 1, 0, 0, 0x40, 0, 0, 0, 8)[0] == bytes((0, 2, 0x80, 0x10))
    assert cd.packet(0x4A, 0, 0, 0, 0x10, 0, 0, 0, 8)[1] & ERR  # only polled
    assert cd.packet(0x46, 0, 0, 0, 0, 0, 0, 0, 8)[0][6:8] == b"\0\x08"  # the profile is CD-ROM


def test_an_overlapped_packet_is_refused(cd: IdeGuest) -> None:
    cd.set(1, 0x02)

    assert cd.command(0xA0) & ERR


def test_each_phase_interrupts(cd: IdeGuest) -> None:
    cd.packet(*read_10(0, 2), limit=2048)

    assert cd.interrupts == 3  # two blocks and the status (clause 9.8)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packet=st.binary(min_size=12, max_size=12), limit=st.integers(0, 0xFFFF), features=st.integers(0, 1))
def test_no_packet_hangs_or_raises(cd: IdeGuest, packet: bytes, limit: int, features: int) -> None:
    for register, value in ((1, features), (4, limit & 0xFF), (5, limit >> 8)):
        cd.set(register, value)
    if cd.command(0xA0) & DRQ:
        cd.write_block(packet)
    cd.set(7, 0x08)

    assert cd.packet(0x00)[1] == READY


def test_a_disc_has_whole_blocks(images: Images) -> None:
    with images.disc.open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(ImageError, match="whole blocks"), ide_guest(cdrom=str(images.disc)):
        pass


def test_a_disc_and_a_disk_cannot_have_one_place(images: Images) -> None:
    paths = {"hdc": str(images.disk), "cdrom": str(images.disc)}
    with pytest.raises(DeviceOptionError, match="leave hdc out"), ide_guest(**paths):
        pass
