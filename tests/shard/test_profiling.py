"""Profiles of a device's handlers."""

from __future__ import annotations

import pstats
from pathlib import Path
from typing import Any

import pytest

from shardio import DeviceMmio, Dispatcher, IoManager, Machine, MachineError, MutDeviceMmio, MutDevicePio
from shardio.address import PioAddress
from shardio.errors import ShardError
from shardio.shard.profiling import Profile

MMIO = 0xD000_0000


class Adder(MutDeviceMmio):
    """Adds what is written, by a method of its own."""

    value = 0

    def read(self, offset: int, size: int) -> int:
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.value = self.add(value)

    def add(self, value: int) -> int:
        return self.value + value


class Constant(DeviceMmio):
    """Can be replicated."""

    def read(self, offset: int, size: int) -> int:
        return 1


class Views(MutDevicePio):
    """Has the view form alone, and fails in writes."""

    def pio_read(self, base: PioAddress, offset: int, data: memoryview) -> None:
        data[:] = b"\x07" * len(data)

    def pio_write(self, base: PioAddress, offset: int, data: memoryview) -> None:
        raise ZeroDivisionError


def calls(file: Path) -> dict[str, int]:
    """How often each function of this file was called."""
    found: Any = pstats.Stats(str(file)).stats  # type: ignore[attr-defined]
    return {name: each[0] for (path, _, name), each in found.items() if path == __file__}


def test_each_handler_and_what_it_calls_is_counted_and_the_answers_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "adder.pstats"
    with Dispatcher(vcpus=1, shards=1) as dispatcher:
        dispatcher.add(Adder, mmio=MMIO, size=8)
        dispatcher.profile("Adder", file)
        port, answer = dispatcher.port(0), bytearray(4)
        for value in range(5):
            port.mmio_write(MMIO, value.to_bytes(4, "little"))
        port.mmio_read(MMIO, answer)
    assert int.from_bytes(answer, "little") == 10
    assert calls(file) == {"write": 5, "add": 5, "read": 1}


def test_views_and_handlers_that_fail_are_counted(tmp_path: Path) -> None:
    profile, data = Profile(str(tmp_path / "views")), bytearray(2)
    handlers = profile.handlers(Views())
    handlers.pio_read(PioAddress(0), 0, memoryview(data))
    with pytest.raises(ZeroDivisionError):
        handlers.pio_write(PioAddress(0), 0, memoryview(data))
    profile.close()
    assert data == b"\7\7"
    assert calls(tmp_path / "views") == {"pio_read": 1, "pio_write": 1}


def test_a_device_that_is_removed_leaves_its_profile(tmp_path: Path) -> None:
    file = tmp_path / "adder.pstats"
    with Dispatcher(vcpus=1, shards=1) as dispatcher:
        adder = dispatcher.add(Adder, mmio=MMIO, size=8)
        dispatcher.profile(adder, file)
        dispatcher.port(0).mmio_write(MMIO, b"\1")
        dispatcher.remove(adder)
        assert calls(file) == {"write": 1, "add": 1}


def test_what_cannot_be_profiled_is_an_error(tmp_path: Path) -> None:
    class Native(MutDeviceMmio):
        native_handler = 1

    with Machine() as machine:
        machine.add(Adder, mmio=MMIO, size=8)
        with pytest.raises(MachineError, match="nobody"):
            machine.profile("nobody", tmp_path / "file")
        machine.add(Constant, mmio=MMIO + 8, size=8, replicas=2)
        with pytest.raises(MachineError, match="in several shards; profile it with replicas=1"):
            machine.profile("Constant", tmp_path / "file")
    with pytest.raises(MachineError, match="native"):
        Profile(str(tmp_path / "native")).handlers(Native())
    with pytest.raises(MachineError, match="No such file or directory; name a file"):
        Profile(str(tmp_path / "none" / "file"))


def test_a_file_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    with Dispatcher(vcpus=1, shards=1) as dispatcher:
        dispatcher.add(Adder, mmio=MMIO, size=8)
        dispatcher.profile("Adder", tmp_path / "none" / "file")
        with pytest.raises((MachineError, ShardError), match="no profile in"):
            dispatcher.start()


def test_a_manager_is_refused(tmp_path: Path) -> None:
    with Dispatcher(vcpus=1, shards=1) as dispatcher:
        dispatcher.add(IoManager, pio=0x100, size=8)
        dispatcher.profile("IoManager", tmp_path / "file")
        with pytest.raises(MachineError, match="dispatches by itself"):
            dispatcher.start()

