"""An ATA disk by PIO: the commands of ATA/ATAPI-6 clause 8, each read with its write."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardio.devices.ide.registers import ABRT, DRQ, ERR, IDNF, READY
from tests.devices.ide.conftest import SECTORS, Images
from tests.devices.ide.guest import LBA, SECTOR, IdeGuest, ide_guest, image_of

READ, READ_EXT, READ_MULTIPLE, READ_MULTIPLE_EXT = 0x20, 0x24, 0xC4, 0x29
WRITE, WRITE_EXT, WRITE_MULTIPLE, WRITE_MULTIPLE_EXT = 0x30, 0x34, 0xC5, 0x39


def words(data: bytes) -> tuple[int, ...]:
    return struct.unpack("<256H", data)


def text(data: bytes, first: int, last: int) -> str:
    """Words `first` to `last`, whose bytes are swapped (clause 8.15.8, table 28)."""
    raw = data[2 * first : 2 * last + 2]
    return b"".join(raw[i + 1 : i + 2] + raw[i : i + 1] for i in range(0, len(raw), 2)).decode().rstrip()


def identify(ide: IdeGuest, code: int = 0xEC) -> bytes:
    return ide.read_sectors(code, 1)


def test_identify_device_tells_the_size_and_the_modes(ide: IdeGuest) -> None:
    data = identify(ide)
    found = words(data)

    assert found[0] & 0x8000 == 0  # an ATA device (clause 8.15.8)
    assert (found[1], found[3], found[6]) == (1, 16, 63)
    assert found[60] | found[61] << 16 == SECTORS
    assert found[100] == SECTORS
    assert found[49] & 0x0300 == 0x0300  # LBA and DMA
    assert found[83] & 0x4400 == 0x4400  # 48-bit addresses
    assert (text(data, 27, 46), text(data, 10, 19)) == ("SHARDIO DISK", "shardio-0")
    assert sum(data) & 0xFF == 0  # integrity word (clause 8.15.61)
    assert data[510] == 0xA5


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize(("lba", "count"), [(0, 1), (7, 3), (SECTORS - 2, 2), (40, 0)])
def test_sectors_are_read(ide: IdeGuest, images: Images, lba: int, count: int, width: int) -> None:
    wanted = count or 256
    ide.address(lba, count)

    assert ide.read_sectors(READ, wanted, width=width) == images.sectors[lba * SECTOR :][: wanted * SECTOR]
    assert ide.status == READY


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize(("lba", "count"), [(0, 1), (7, 3), (SECTORS - 2, 2), (40, 0)])
def test_sectors_are_written(ide: IdeGuest, images: Images, lba: int, count: int, width: int) -> None:
    data = bytes(reversed(images.sectors[: (count or 256) * SECTOR]))
    ide.address(lba, count)

    assert ide.write_sectors(WRITE, data, width=width) == READY
    wanted = bytearray(images.sectors)
    wanted[lba * SECTOR : lba * SECTOR + len(data)] = data
    assert images.disk.read_bytes() == wanted


def test_48_bit_addresses_are_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "large.img"
    far = (1 << 28) + 5
    with path.open("wb") as file:
        file.truncate((far + 3) * SECTOR)
    data = bytes(range(256)) * 4
    with ide_guest(hda=str(path)) as ide:
        ide.wide_address(far, 2)
        written = ide.write_sectors(WRITE_EXT, data)
        ide.wide_address(far, 2)
        read = ide.read_sectors(READ_EXT, 2)
        found = words(identify(ide))
    assert (written, read) == (READY, data)
    assert found[60] | found[61] << 16 == 0x0FFF_FFFF  # clause 8.15.8, words 60 and 61
    assert found[100] | found[101] << 16 == far + 3


def test_a_short_address_has_28_bits_and_a_wide_one_forgets_the_device_register(ide: IdeGuest) -> None:
    ide.wide_address(5, 1)
    ide.set(6, 0xA0 | LBA | 0x0F)

    assert ide.command(READ_EXT) & DRQ
    ide.reset()
    ide.address(5, 1)
    ide.set(6, 0xA0 | LBA | 0x0F)
    assert ide.command(READ) & ERR


def test_registers_show_what_was_written_before_with_hob(ide: IdeGuest) -> None:
    ide.set(3, 0x12)
    ide.set(3, 0x34)
    now = ide.get(3)
    ide.out(ide.control_port, 0x80)  # HOB (clause 7.8)

    assert (now, ide.get(3)) == (0x34, 0x12)
    ide.set(4, 0)  # any write of the command block clears HOB
    assert ide.get(3) == 0x34


@pytest.mark.parametrize(("read", "write"), [
    (READ_MULTIPLE, WRITE_MULTIPLE), (READ_MULTIPLE_EXT, WRITE_MULTIPLE_EXT),
])  # fmt: skip
def test_multiple_sectors_come_and_go_in_blocks(ide: IdeGuest, images: Images, read: int, write: int) -> None:
    ide.set(2, 8)
    assert ide.command(0xC6) == READY
    before = ide.interrupts
    ide.wide_address(3, 20)
    got = ide.read_sectors(read, 20, per_block=8)

    assert got == images.sectors[3 * SECTOR : 23 * SECTOR]
    assert ide.interrupts - before == 3  # one a block: 8, 8 and 4 sectors
    data, before = bytes(reversed(got)), ide.interrupts
    ide.wide_address(100, 20)
    assert ide.write_sectors(write, data, per_block=8) == READY
    assert ide.interrupts - before == 3
    assert images.disk.read_bytes()[100 * SECTOR : 120 * SECTOR] == data


@pytest.mark.parametrize("sectors", [3, 32, 255])
def test_a_multiple_that_is_not_offered_is_refused(ide: IdeGuest, sectors: int) -> None:
    ide.set(2, sectors)

    assert ide.command(0xC6) & ERR
    assert ide.error == ABRT
    ide.address(0, 1)
    assert ide.command(READ_MULTIPLE) & ERR
    assert ide.command(WRITE_MULTIPLE) & ERR


def test_cylinders_heads_and_sectors_are_an_address(ide: IdeGuest, images: Images) -> None:
    for register, value in ((2, 1), (3, 9), (4, 0), (5, 0), (6, 0xA2)):
        ide.set(register, value)

    assert ide.read_sectors(READ, 1) == images.sectors[(2 * 63 + 8) * SECTOR :][:SECTOR]
    ide.set(2, 10)
    ide.set(6, 0xA3)
    assert ide.command(0x91) == READY  # 4 heads, 10 sectors a track
    for register, value in ((2, 1), (3, 1), (4, 2), (5, 0), (6, 0xA1)):
        ide.set(register, value)
    assert ide.read_sectors(READ, 1) == images.sectors[(2 * 4 + 1) * 10 * SECTOR :][:SECTOR]
    ide.set(3, 0)
    assert ide.command(READ) & ERR  # sectors count from 1
    assert ide.error == IDNF


@pytest.mark.parametrize("code", [READ, WRITE, READ_EXT, WRITE_EXT, 0x40, 0x42, 0xC8, 0xCA, 0x25, 0x35])
def test_an_address_past_the_end_is_not_found(ide: IdeGuest, images: Images, code: int) -> None:
    ide.wide_address(SECTORS - 1, 2)
    status = ide.command(code)

    assert (status, ide.error) == (READY | ERR, IDNF)
    assert images.disk.read_bytes() == images.sectors


def test_the_last_48_bit_address_is_not_found(ide: IdeGuest) -> None:
    ide.wide_address((1 << 48) - 1, 0)

    assert ide.command(READ_EXT) & ERR
    assert ide.error == IDNF


@pytest.mark.parametrize("code", [0x00, 0x08, 0xA0, 0xA1, 0xB0, 0xF5, 0xFF])
def test_an_unknown_command_is_aborted(ide: IdeGuest, code: int) -> None:
    assert ide.command(code) == READY | ERR
    assert ide.error == ABRT


@pytest.mark.parametrize("code", [0x10, 0x70, 0xE0, 0xE1, 0xE2, 0xE3, 0xE6, 0xE7, 0xEA])
def test_commands_without_data_succeed_with_an_interrupt(ide: IdeGuest, code: int) -> None:
    before = ide.interrupts

    assert ide.command(code) == READY
    assert ide.interrupts == before + 1


def test_the_power_mode_is_active(ide: IdeGuest) -> None:
    assert ide.command(0xE5) == READY
    assert ide.get(2) == 0xFF  # clause 8.7


def test_sectors_are_verified(ide: IdeGuest) -> None:
    ide.address(2, 200)

    assert ide.command(0x40) == READY


@pytest.mark.parametrize(("feature", "count", "error"), [
    (0x03, 0x0C, 0), (0x03, 0x22, 0), (0x03, 0x45, 0), (0x03, 0x47, ABRT), (0x03, 0x23, ABRT),
    (0x03, 0x10, ABRT), (0x02, 0, 0), (0x82, 0, 0), (0x66, 0, 0), (0x99, 0, ABRT),
])  # fmt: skip
def test_features_are_set_or_refused(ide: IdeGuest, feature: int, count: int, error: int) -> None:
    ide.set(1, feature)
    ide.set(2, count)

    assert ide.command(0xEF) == READY | (ERR if error else 0)
    assert ide.error == error


def test_identify_tells_the_mode_and_the_write_cache(ide: IdeGuest) -> None:
    for feature, count in ((0x03, 0x22), (0x82, 0)):
        ide.set(1, feature)
        ide.set(2, count)
        ide.command(0xEF)
    found = words(identify(ide))

    assert found[63] == 0x0407  # multiword DMA mode 2 (clause 8.15.8, word 63)
    assert found[85] & 0x0020 == 0


def test_a_read_only_disk_reads_and_refuses_writes(images: Images) -> None:
    with ide_guest(hda=str(images.disk), read_only=True) as ide:
        ide.address(1, 1)
        status, error = ide.command(WRITE), ide.error
        read = ide.read_sectors(READ, 1)
    assert (status, error) == (READY | ERR, ABRT)
    assert read == images.sectors[SECTOR : 2 * SECTOR]


def test_data_outside_a_block_is_nothing_and_changes_nothing(ide: IdeGuest, images: Images) -> None:
    ide.out(ide.base, 0x1234, 2)
    assert ide.inp(ide.base, 2) == 0
    ide.address(0, 1)
    ide.command(READ)
    ide.out(ide.base, 0x1234, 2)

    assert ide.read_block() == images.sectors[:SECTOR]
    assert ide.inp(ide.base, 2) == 0


def test_mixed_widths_move_the_bytes_in_order(ide: IdeGuest, images: Images) -> None:
    ide.address(0, 1)
    ide.command(READ)
    widths = [1, 2, 4, 2, 1, 2, 2, 4] * 40
    got = b""
    for width in widths:
        got += ide.inp(ide.base, width).to_bytes(width, "little")

    assert got[:SECTOR] == images.sectors[:SECTOR]


def test_a_port_wider_than_a_byte_is_its_neighbour_too(ide: IdeGuest) -> None:
    ide.out(ide.base + 2, 0x3412, 2)

    assert ide.inp(ide.base + 2, 2) == 0x3412
    assert (ide.get(2), ide.get(3)) == (0x12, 0x34)


STEP = st.tuples(
    st.booleans(), st.integers(0, 31), st.integers(1, 6),
    st.sampled_from([(False, 1), (True, 1), (False, 4)]), st.sampled_from([1, 2, 4]), st.integers(0, 255),
)  # fmt: skip
"""Write or read, the first sector, how many, 48-bit and sectors a block, width, and what is written."""


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=8))
def test_a_disk_is_its_bytes(tmp_path: Path, steps: list[Any]) -> None:
    path = tmp_path / "model.img"
    model = bytearray(image_of(path, 32))
    with ide_guest(hda=str(path)) as ide:
        ide.set(2, 4)
        ide.command(0xC6)
        for writes, lba, count, (wide, block), width, value in steps:
            count = min(count, 32 - lba)
            span = slice(lba * SECTOR, (lba + count) * SECTOR)
            (ide.wide_address if wide else ide.address)(lba, count)
            codes = (0x29, 0x39) if wide else (0xC4, 0xC5)
            plain = (READ_EXT, WRITE_EXT) if wide else (READ, WRITE)
            read, write = codes if block > 1 else plain
            if writes:
                model[span] = bytes((value + i & 0xFF) for i in range(count * SECTOR))
                assert ide.write_sectors(write, bytes(model[span]), block, width) == READY
            else:
                assert ide.read_sectors(read, count, block, width) == model[span]
        assert path.read_bytes() == model
