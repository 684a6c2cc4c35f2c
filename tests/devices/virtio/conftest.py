"""Fixtures of the virtio tests: guest RAM, a loop that nobody runs, a backend that records."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardio.devices.virtio import VirtioPciRng
from shardio.interrupt import RecordingBackend
from shardio.memory import GuestMemory
from tests.devices.virtio.block_guest import SECTORS, refuse_to_wait
from tests.devices.virtio.driver import RAM, ModelDriver
from tests.devices.virtio.pci_guest import LINE, PciGuest, plugged_in


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory(RAM) as memory:
        yield memory


@pytest.fixture
def driver(memory: GuestMemory) -> ModelDriver:
    return ModelDriver(memory)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def backend() -> Iterator[RecordingBackend]:
    with RecordingBackend() as backend:
        yield backend


@pytest.fixture
def pci(memory: GuestMemory, backend: RecordingBackend) -> Iterator[PciGuest]:
    """The driver of an entropy source on PCI, its BAR enabled."""
    with plugged_in(VirtioPciRng(line=LINE), memory, backend) as guest:
        guest.enable_memory()
        yield guest


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk image of 64 sectors, all different."""
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(1).randbytes(512 * SECTORS))
    return path


@pytest.fixture
def nothing_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every read of a disk takes a thread."""
    preadv = os.preadv

    def read(*arguments: Any) -> int:
        refuse_to_wait(arguments)
        return preadv(*arguments)

    monkeypatch.setattr(os, "preadv", read)
