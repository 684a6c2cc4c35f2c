"""`shardio.devices.virtio.block` and `image`: through a real queue, over a real file, in a running loop."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from shardio.devices.virtio import VirtioMmioBlock, mmio
from shardio.devices.virtio.block import F_MQ, F_RO
from shardio.devices.virtio.image import RawImage
from shardio.errors import DeviceOptionError, ImageError
from tests.devices.virtio.block_guest import (
    DISCARD,
    FLUSH,
    GET_ID,
    IN,
    IOERR,
    OK,
    OUT,
    SECTORS,
    UNSUPP,
    WRITE_ZEROES,
    disk,
)
from tests.devices.virtio.guest import NEEDS_RESET, run


def test_reading_gives_what_the_file_holds(image: Path) -> None:
    async def test() -> None:
        async with disk(image) as guest:
            assert await guest.request(IN, 3, expect=1024) == (OK, image.read_bytes()[3 * 512 : 5 * 512])

    run(test)


def test_writing_changes_the_file_there_and_nowhere_else(image: Path) -> None:
    async def test() -> None:
        before = image.read_bytes()
        async with disk(image) as guest:
            assert await guest.request(OUT, 5, b"\xab" * 512) == (OK, b"")
        assert image.read_bytes() == before[: 5 * 512] + b"\xab" * 512 + before[6 * 512 :]

    run(test)


def test_the_configuration_tells_capacity_and_limits(image: Path) -> None:
    async def test() -> None:
        async with disk(image, queues=2) as guest:
            device = guest.device
            assert device.read(mmio.CONFIG, 8) == SECTORS
            assert device.read(mmio.CONFIG + 12, 4) == 254  # seg_max
            assert device.read(mmio.CONFIG + 20, 4) == 512  # blk_size
            assert device.read(mmio.CONFIG + 34, 2) == 2  # num_queues
            assert device.read(mmio.CONFIG + 40, 4) == 16  # max_discard_seg
            assert device.read(mmio.CONFIG + 52, 4) == 16  # max_write_zeroes_seg
            assert device.read(mmio.CONFIG + 56, 1) == 1  # write_zeroes_may_unmap
            assert len(device.virtio.config()) == 60
            assert guest.offered() & F_MQ

    run(test)


def test_a_flush_succeeds(image: Path) -> None:
    async def test() -> None:
        async with disk(image) as guest:
            assert await guest.request(FLUSH) == (OK, b"")

    run(test)


@pytest.mark.parametrize("serial", ["x" * 21, "n\u00ba 1"])
def test_a_serial_number_that_would_be_changed_is_refused(image: Path, serial: str) -> None:
    with pytest.raises(DeviceOptionError, match="20 ASCII characters"):
        VirtioMmioBlock(str(image), serial=serial)


def test_the_serial_number(image: Path) -> None:
    async def test() -> None:
        async with disk(image, serial="abc") as guest:
            assert await guest.request(GET_ID, expect=20) == (OK, b"abc".ljust(20, b"\0"))

    run(test)


@pytest.mark.parametrize("flags", [0, 1])
def test_write_zeroes(image: Path, flags: int) -> None:
    async def test() -> None:
        before = image.read_bytes()
        async with disk(image) as guest:
            ranges = struct.pack("<QIIQII", 1, 2, flags, 8, 1, flags)
            assert await guest.request(WRITE_ZEROES, data=ranges) == (OK, b"")
        after = bytearray(before)
        after[512:1536] = bytes(1024)
        after[8 * 512 : 9 * 512] = bytes(512)
        assert image.read_bytes() == after

    run(test)


def test_write_zeroes_where_the_file_system_cannot(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RawImage, "_fallocate", lambda *arguments: False)

    async def test() -> None:
        async with disk(image) as guest:
            await guest.request(WRITE_ZEROES, data=struct.pack("<QII", 0, SECTORS, 0))
        assert image.read_bytes() == bytes(512 * SECTORS)

    run(test)


def test_discard_keeps_everything_else_and_the_size(image: Path) -> None:
    async def test() -> None:
        before = image.read_bytes()
        async with disk(image) as guest:
            assert await guest.request(DISCARD, data=struct.pack("<QII", 8, 8, 0)) == (OK, b"")
        after = image.read_bytes()
        assert (after[: 8 * 512], after[16 * 512 :]) == (before[: 8 * 512], before[16 * 512 :])

    run(test)


@pytest.mark.parametrize(
    ("kind", "sector", "data", "expect", "status"),
    [
        (IN, SECTORS, b"", 512, IOERR),
        (IN, SECTORS - 1, b"", 1024, IOERR),
        (IN, 2**64 - 1, b"", 512, IOERR),
        (IN, 0, b"", 100, IOERR),
        (OUT, SECTORS, bytes(512), 0, IOERR),
        (OUT, 0, bytes(100), 0, IOERR),
        (2, 0, b"", 0, UNSUPP),
        (0xFFFFFFFF, 0, b"", 0, UNSUPP),
        (DISCARD, 0, b"", 0, IOERR),
        (DISCARD, 0, bytes(15), 0, IOERR),
        (DISCARD, 0, bytes(16 * 17), 0, IOERR),
        (DISCARD, 0, struct.pack("<QII", SECTORS, 1, 0), 0, IOERR),
        (DISCARD, 0, struct.pack("<QII", 0, 0xFFFFFFFF, 0), 0, IOERR),
        (DISCARD, 0, struct.pack("<QII", 0, 1, 1), 0, UNSUPP),
        (WRITE_ZEROES, 0, struct.pack("<QII", 0, 1, 2), 0, UNSUPP),
        (WRITE_ZEROES, 0, struct.pack("<QII", 2**63, 1, 0), 0, IOERR),
    ],
)
def test_an_impossible_request_has_its_status_and_changes_nothing(
    image: Path, kind: int, sector: int, data: bytes, expect: int, status: int
) -> None:
    async def test() -> None:
        before = image.read_bytes()
        async with disk(image) as guest:
            assert (await guest.request(kind, sector, data, expect))[0] == status
        assert image.read_bytes() == before

    run(test)


@pytest.mark.parametrize("kind", [OUT, DISCARD, WRITE_ZEROES])
def test_a_read_only_disk_is_not_written(image: Path, kind: int) -> None:
    async def test() -> None:
        before = image.read_bytes()
        async with disk(image, read_only=True) as guest:
            assert guest.offered() & F_RO
            payload = bytes(512) if kind == OUT else struct.pack("<QII", 0, 1, 0)
            assert (await guest.request(kind, 0, payload))[0] == IOERR
            assert (await guest.request(IN, 0, expect=512)) == (OK, before[:512])
        assert image.read_bytes() == before

    run(test)


@pytest.mark.parametrize(("readable", "writable"), [([b"short"], [1]), ([bytes(16)], []), ([], [1])])
def test_a_request_that_cannot_be_answered_stops_the_device(
    image: Path, readable: list[bytes], writable: list[int]
) -> None:
    async def test() -> None:
        async with disk(image) as guest:
            guest.queues[0].add(readable, writable)
            guest.notify(0)
            assert guest.status & NEEDS_RESET

    run(test)


def test_the_header_and_the_status_may_be_split_anywhere(image: Path) -> None:
    async def test() -> None:
        async with disk(image) as guest:
            header = struct.pack("<IIQ", IN, 0, 2)
            guest.queues[0].add([header[:3], header[3:]], [100, 412 + 1])
            guest.notify(0)
            [(_, written, content)] = await guest.collected(0, 1)
            assert (written, content[:512]) == (513, image.read_bytes()[1024:1536])

    run(test)


def test_a_file_that_shrank_is_an_io_error(image: Path) -> None:
    async def test() -> None:
        async with disk(image) as guest:
            os.truncate(image, 512)
            assert (await guest.request(IN, 8, expect=512))[0] == IOERR

    run(test)


# -- images that cannot be used -------------------------------------------------------------------------


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.img"):
        VirtioMmioBlock(str(tmp_path / "none.img"))


def test_a_directory_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="raw disk image"):
        VirtioMmioBlock(str(tmp_path), read_only=True)


@pytest.mark.parametrize("size", [0, 100])
def test_an_image_of_no_whole_sectors_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "odd.img"
    path.write_bytes(bytes(size))

    with pytest.raises(ImageError, match="whole sectors"):
        VirtioMmioBlock(str(path))


@pytest.mark.parametrize("options", [{"queues": 0}, {"queues": 17}, {"threads": 0}, {"threads": 65}])
def test_numbers_out_of_range_are_refused_and_the_image_closed(image: Path, options: dict[str, int]) -> None:
    with pytest.raises(DeviceOptionError):
        VirtioMmioBlock(str(image), **options)  # type: ignore[arg-type]


def test_of_a_read_that_failed_nothing_was_written(image: Path) -> None:
    async def test() -> None:
        async with disk(image) as guest:
            guest.queues[0].add([struct.pack("<IIQ", IN, 0, SECTORS)], [512, 1])
            guest.notify(0)
            [(_, written, content)] = await guest.collected(0, 1)
            assert (written, content[-1]) == (0, IOERR)

    run(test)


@pytest.mark.parametrize(("count", "status"), [(1 << 22, OK), ((1 << 22) + 1, IOERR)])
def test_a_range_has_so_many_sectors(image: Path, count: int, status: int) -> None:
    os.truncate(image, 512 * ((1 << 22) + 8))

    async def test() -> None:
        async with disk(image) as guest:
            assert await guest.request(DISCARD, data=struct.pack("<QII", 0, count, 0)) == (status, b"")

    run(test)
