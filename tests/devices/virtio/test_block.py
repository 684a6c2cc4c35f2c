"""`shardio.devices.virtio.block` and `image`: through a real queue, over a real file, in a running loop."""

from __future__ import annotations

import asyncio
import os
import random
import struct
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shardio.devices.virtio import VirtioMmioBlock, mmio
from shardio.devices.virtio.block import F_FLUSH, F_MQ, F_RO
from shardio.devices.virtio.image import RawImage
from shardio.errors import DeviceOptionError, ImageError
from shardio.memory import GuestMemory
from tests.devices.virtio.guest import NEEDS_RESET, Host, MmioGuest, until

IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13
OK, IOERR, UNSUPP = 0, 1, 2
SECTORS = 64


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(1).randbytes(512 * SECTORS))
    return path


class Disk(MmioGuest):
    """A driver that makes one request at a time."""

    async def request(
        self, kind: int, sector: int = 0, data: bytes = b"", expect: int = 0, *, queue: int = 0
    ) -> tuple[int, bytes]:
        """(status, data that was read)."""
        header = struct.pack("<IIQ", kind, 0, sector)
        self.queues[queue].add([header, data] if data else [header], [expect, 1] if expect else [1])
        self.notify(queue)
        [(_, _, content)] = await self.collected(queue, 1)
        return content[-1], content[:-1]


@asynccontextmanager
async def disk(path: Path, *, without: int = 0, size: int = 8, **options: Any) -> AsyncIterator[Disk]:
    with GuestMemory(0x200000) as memory:
        device = VirtioMmioBlock(str(path), **options)
        device.attach(Host(memory, asyncio.get_running_loop()))
        guest = Disk(device, memory)
        guest.start(without=without, size=size)
        yield guest
        device.detach()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


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


@pytest.mark.parametrize(("without", "flags"), [(0, 0), (F_FLUSH, os.RWF_DSYNC)])
def test_without_flush_a_write_is_stable_before_it_completes(
    image: Path, monkeypatch: pytest.MonkeyPatch, without: int, flags: int
) -> None:
    seen = []
    original = os.pwritev
    monkeypatch.setattr(
        os, "pwritev", lambda fd, views, at, how: seen.append(how) or original(fd, views, at, how)
    )

    async def test() -> None:
        async with disk(image, without=without) as guest:
            await guest.request(OUT, 0, bytes(512))

    run(test)
    assert seen == [flags]


def test_a_flush_begins_after_every_write_that_completed(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    write, sync = os.pwritev, os.fdatasync
    monkeypatch.setattr(os, "pwritev", lambda *args: (write(*args), calls.append("written"))[0])
    monkeypatch.setattr(os, "fdatasync", lambda fd: calls.append("sync") or sync(fd))

    async def test() -> None:
        async with disk(image) as guest:
            await guest.request(OUT, 0, bytes(512))
            await guest.request(OUT, 1, bytes(512))
            await guest.request(FLUSH)

    run(test)
    assert calls == ["written", "written", "sync"]


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


def test_two_queues_and_many_requests_in_flight(image: Path) -> None:
    """Random reads and writes of disjoint sectors on two queues: the file is what a model says."""

    async def test() -> None:
        model = bytearray(image.read_bytes())
        rng = random.Random(7)
        async with disk(image, queues=2, size=64) as guest:
            for turn in range(8):
                sectors = rng.sample(range(SECTORS), 20)
                for number, sector in enumerate(sectors):
                    queue = guest.queues[number % 2]
                    if number % 4 < 2:
                        data = rng.randbytes(512)
                        model[512 * sector : 512 * sector + 512] = data
                        queue.add([struct.pack("<IIQ", OUT, 0, sector), data], [1], indirect=bool(turn % 2))
                    else:
                        queue.add([struct.pack("<IIQ", IN, 0, sector)], [512, 1], indirect=bool(turn % 2))
                guest.notify(0)
                guest.notify(1)
                done = await guest.collected(0, 10) + await guest.collected(1, 10)
                assert [content[-1] for _, _, content in done] == [OK] * 20
        assert image.read_bytes() == model

    run(test)


def test_a_reset_waits_for_what_runs(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the reset no thread writes into guest RAM: the buffer stays as the driver left it."""
    entered, release = threading.Event(), threading.Event()
    original = os.preadv

    def slow(*arguments: Any) -> int:
        entered.set()
        release.wait()
        return original(*arguments)

    monkeypatch.setattr(os, "preadv", slow)

    async def test() -> None:
        async with disk(image) as guest:
            guest.queues[0].add([struct.pack("<IIQ", IN, 0, 0)], [512, 1])
            guest.notify(0)
            entered.wait()
            threading.Timer(0.02, release.set).start()
            guest.set(mmio.STATUS, 0)
            running = guest.device.virtio._running  # type: ignore[attr-defined]
            used = guest.queues[0].u16(guest.queues[0].used + 2)
            assert (running, used) == (set(), 0)

    run(test)


def test_the_loop_runs_while_the_disk_is_slow(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    original = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *arguments: (release.wait(), original(*arguments))[1])

    async def test() -> None:
        async with disk(image) as guest:
            guest.queues[0].add([struct.pack("<IIQ", IN, 0, 0)], [512, 1])
            guest.notify(0)
            turns = []
            asyncio.get_running_loop().call_later(0.001, lambda: (turns.append(1), release.set()))
            await until(lambda: bool(turns))
            assert await guest.collected(0, 1)

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
