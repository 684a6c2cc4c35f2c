"""One image and several users: a writer is alone, readers share, and whoever is refused learns who has it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shardio.devices.virtio import VirtioMmioBlock
from shardio.devices.virtio.image import RawImage
from shardio.errors import ImageError
from shardio.memory import GuestMemory
from tests.devices.virtio.guest import Host

Attach = Callable[..., VirtioMmioBlock]

HOLD = """
import sys
from shardio.devices.virtio.image import RawImage
image = RawImage(sys.argv[1], read_only=sys.argv[2] == "True")
image.lock("device far")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(image: Path, *, read_only: bool) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the image until it is killed or its input ends."""
    words = [sys.executable, "-c", HOLD, str(image), str(read_only)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process


@pytest.fixture
def attach(memory: GuestMemory, loop: asyncio.AbstractEventLoop, image: Path) -> Iterator[Attach]:
    """Makes and attaches a disk of this image; all are detached at the end."""
    attached = []

    def make(name: str, *, read_only: bool = False) -> VirtioMmioBlock:
        disk = VirtioMmioBlock(str(image), read_only=read_only)
        disk.attach(Host(memory, loop, name=name))
        attached.append(disk)
        return disk

    yield make
    for disk in attached:
        disk.detach()


@pytest.mark.parametrize("read_only", [False, True])
def test_what_one_device_writes_no_other_may_open(attach: Attach, read_only: bool) -> None:
    attach("disk-a")

    with pytest.raises(ImageError) as refused:
        attach("disk-b", read_only=read_only)

    assert "device disk-b of process" in str(refused.value)
    assert "device disk-a of the same process has it" in str(refused.value)


def test_what_one_device_reads_no_other_may_write(attach: Attach) -> None:
    attach("reader", read_only=True)

    with pytest.raises(ImageError, match=r"device writer .* device reader of the same process"):
        attach("writer")


def test_readers_share(attach: Attach) -> None:
    attach("one", read_only=True)
    attach("other", read_only=True)


def test_readers_of_two_processes_share(attach: Attach, image: Path) -> None:
    with another_process(image, read_only=True):
        attach("here", read_only=True)


@pytest.mark.parametrize(("there", "here"), [(False, False), (False, True), (True, False)])
def test_a_user_of_another_machine_is_named(attach: Attach, image: Path, there: bool, here: bool) -> None:
    with another_process(image, read_only=there) as process:
        with pytest.raises(ImageError) as refused:
            attach("here", read_only=here)

    assert f"device here of process {os.getpid()} wants it" in str(refused.value)
    assert f"process {process.pid} ({sys.executable}" in str(refused.value)


def test_a_killed_user_leaves_no_lock(attach: Attach, image: Path) -> None:
    with another_process(image, read_only=False) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        attach("heir")


def test_a_detached_device_leaves_the_image_to_the_next(attach: Attach) -> None:
    attach("first").detach()

    attach("second").detach()


def test_a_link_to_the_image_is_the_image(attach: Attach, image: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(image)
    attach("disk-a")
    other = RawImage(str(tmp_path / "link"))

    with pytest.raises(ImageError, match="device disk-a of the same process"):
        other.lock("device disk-b")
    other.close()


def test_a_file_system_without_locks_is_told_of(
    image: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import fcntl

    def refuse(*_: object) -> bytes:
        raise OSError(37, "No locks available")

    disk = RawImage(str(image))
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "fcntl", refuse)
        disk.lock("device disk")
    disk.close()

    assert "cannot be locked (No locks available)" in caplog.text
