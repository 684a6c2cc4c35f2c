"""`shardio.devices.virtio.block` while its threads run: order, many requests at once, resets, a slow disk."""

from __future__ import annotations

import asyncio
import os
import random
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from shardio.devices.virtio import mmio
from shardio.devices.virtio.block import F_FLUSH
from tests.devices.virtio.block_guest import FLUSH, IN, OK, OUT, SECTORS, disk, refuse_to_wait
from tests.devices.virtio.guest import run, until


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
    entered, release, left = threading.Event(), threading.Event(), threading.Event()
    original = os.preadv

    def slow(*arguments: Any) -> int:
        refuse_to_wait(arguments)
        entered.set()
        release.wait()
        moved = original(*arguments)
        left.set()
        return moved

    monkeypatch.setattr(os, "preadv", slow)

    async def test() -> None:
        async with disk(image) as guest:
            guest.queues[0].add([struct.pack("<IIQ", IN, 0, 0)], [512, 1])
            guest.notify(0)
            entered.wait()
            threading.Timer(0.02, release.set).start()
            guest.set(mmio.STATUS, 0)
            waited = left.is_set()
            used = guest.queues[0].u16(guest.queues[0].used + 2)
            assert (waited, used) == (True, 0)

    run(test)


def test_the_loop_runs_while_the_disk_is_slow(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    original = os.preadv

    def slow(*arguments: Any) -> int:
        refuse_to_wait(arguments)
        release.wait()
        return original(*arguments)

    monkeypatch.setattr(os, "preadv", slow)

    async def test() -> None:
        async with disk(image) as guest:
            guest.queues[0].add([struct.pack("<IIQ", IN, 0, 0)], [512, 1])
            guest.notify(0)
            turns = []
            asyncio.get_running_loop().call_later(0.001, lambda: (turns.append(1), release.set()))
            await until(lambda: bool(turns))
            assert await guest.collected(0, 1)

    run(test)
