"""`shardio.devices.virtio.block`: reads of what the host has in memory take no thread, other requests do."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.devices.virtio.block_guest import IN, IOERR, OK, OUT, SECTORS, disk
from tests.devices.virtio.guest import run

Read = Callable[..., int]
preadv: Read = os.preadv


def at_hand(*arguments: Any) -> int:
    return preadv(*arguments[:3])


def refuses(number: int) -> Read:
    def read(*arguments: Any) -> int:
        if len(arguments) > 3:
            raise OSError(number, os.strerror(number))
        return preadv(*arguments)

    return read


def in_part(descriptor: int, views: Any, offset: int, *flags: int) -> int:
    return preadv(descriptor, [views[0][:100]] if flags else views, offset)


class Seen:
    """Stands for a function of `os`: who called it, and with how many arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, does: Callable[..., Any]) -> None:
        self.does, self.calls = does, list[tuple[bool, int]]()
        monkeypatch.setattr(os, name, self)

    def __call__(self, *arguments: Any) -> Any:
        self.calls.append((threading.current_thread() is threading.main_thread(), len(arguments)))
        return self.does(*arguments)


def test_what_is_in_memory_is_read_without_a_thread(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch, "preadv", at_hand)

    async def test() -> None:
        async with disk(image) as guest:
            assert await guest.request(IN, 3, expect=1024) == (OK, image.read_bytes()[1536:2560])

    run(test)
    assert seen.calls == [(True, 4)]


def test_a_write_takes_a_thread(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file system of today says at once that a write into the page cache would wait."""
    seen = Seen(monkeypatch, "pwritev", os.pwritev)

    async def test() -> None:
        async with disk(image) as guest:
            assert await guest.request(OUT, 3, b"x" * 512) == (OK, b"")

    run(test)
    assert seen.calls == [(False, 4)]
    assert image.read_bytes()[1536:2048] == b"x" * 512


@pytest.mark.parametrize(
    ("read", "asked"),
    [(refuses(errno.EAGAIN), 2), (refuses(errno.EIO), 2), (in_part, 2), (refuses(errno.EOPNOTSUPP), 1)],
    ids=["not there", "failed", "in part", "not offered"],
)
def test_what_is_not_at_hand_is_read_by_a_thread(
    image: Path, monkeypatch: pytest.MonkeyPatch, read: Read, asked: int
) -> None:
    """A file system that cannot tell is asked once."""
    seen = Seen(monkeypatch, "preadv", read)

    async def test() -> None:
        async with disk(image) as guest:
            for _ in range(2):
                assert await guest.request(IN, 3, expect=512) == (OK, image.read_bytes()[1536:2048])

    run(test)
    assert seen.calls.count((True, 4)) == asked
    assert seen.calls.count((False, 3)) == 2


@pytest.mark.parametrize("sector", [SECTORS, 1 << 60])
def test_what_is_beyond_the_end_is_never_read(
    image: Path, monkeypatch: pytest.MonkeyPatch, sector: int
) -> None:
    seen = Seen(monkeypatch, "preadv", at_hand)

    async def test() -> None:
        async with disk(image) as guest:
            status, _ = await guest.request(IN, sector, expect=512)
            assert status == IOERR

    run(test)
    assert seen.calls == []
