"""A shard that hangs is told of with its vCPU, device, access, and the stacks of its Python."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shardio import Dispatcher, MutDeviceMmio
from shardio.dispatcher import requests
from shardio.errors import MachineError
from shardio.shard import notebook
from shardio.supervisor.events import Event, ShardHung
from shardio.supervisor.stacks import look_into
from tests.e2e.support import until

BASE = 0xD000_0000


class Stuck(MutDeviceMmio):
    """Never answers; it never gives the GIL up either, as far as Python lets it."""

    mmio_size = 0x100

    def __init__(self, at_once: bool = False) -> None:
        if at_once:
            self.spin()

    def spin(self) -> int:
        while True:
            pass

    def read(self, offset: int, size: int) -> int:
        return self.spin()

    def write(self, offset: int, size: int, value: int) -> None:
        self.spin()


@contextmanager
def dispatcher(events: list[Event], **arguments: float) -> Iterator[Dispatcher]:
    with Dispatcher(shards=1, on_event=events.append, **arguments) as d:  # type: ignore[arg-type]
        yield d


def hung(events: list[Event]) -> list[ShardHung]:
    return [event for event in events if isinstance(event, ShardHung)]


@pytest.mark.parametrize("direction", ["read", "write"])
def test_a_hang_names_vcpu_device_access_and_the_line(direction: str) -> None:
    events: list[Event] = []
    with dispatcher(events, hang_deadline=0.5) as d:
        d.add(Stuck, mmio=BASE, name="lamp", shard="room", policy="fail")
        port = d.port(0)
        access = {"read": port.mmio_read, "write": port.mmio_write}[direction]
        with pytest.raises(Exception, match="did not answer"):
            access(BASE + 4, bytearray(2))

        (hang,) = hung(events)
        assert (hang.shard, hang.vcpu, hang.device) == ("room", 0, "lamp")
        assert hang.access == f"{direction} of 2 bytes at mmio 0xd0000004"
        assert f'File "{__file__}", line' in hang.stacks
        assert "in spin" in hang.stacks


def test_a_shard_that_is_stopped_is_told_of_without_stacks() -> None:
    events: list[Event] = []
    with dispatcher(events, hang_deadline=0.5) as d:
        d.add(Stuck, mmio=BASE)
        d.start()
        (shard,) = [shard for shard in d.supervisor.shards if shard.alive]
        os.kill(shard.pid, signal.SIGSTOP)
        until(lambda: _state(shard.pid) == "T", "it is stopped")

        assert look_into(shard, d.supervisor.call) == ("", "")


def test_a_constructor_that_hangs_names_shard_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    with dispatcher([], hang_deadline=60.0) as d:
        d.add(Stuck, mmio=BASE + 0x100, shard="room")  # its module is loaded by then
        d.start()
        monkeypatch.setattr(requests, "REQUEST_TIMEOUT_S", 1.0)
        with pytest.raises(MachineError, match=r"room has not answered for 1\.0 s at device lamp") as told:
            d.add(Stuck, mmio=BASE, name="lamp", shard="room", at_once=True)

        assert f"device lamp (Stuck, {__file__}), constructor" in str(told.value)
        assert "in spin" in told.value.__notes__[0]


def test_a_notebook_holds_what_is_done_and_the_stacks_and_no_more() -> None:
    fd = notebook.create()
    try:
        os.pwrite(fd, b"making a lamp", 0)
        os.lseek(fd, notebook.STEP_BYTES, os.SEEK_SET)
        os.write(fd, b"stack")
        full = notebook.read(fd)
        notebook.erase(fd)

        assert (full, notebook.read(fd)) == (("making a lamp", "stack"), ("making a lamp", ""))
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", notebook.SIZE)
    finally:
        os.close(fd)


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]
