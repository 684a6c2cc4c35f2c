"""`Dispatcher.reload`: fresh code for devices while vCPUs go on asking them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardio import DeviceFailed, DeviceHandle, Dispatcher, MachineError, Port, ShardError
from shardio.dispatcher import reload
from tests.dispatcher.devices import BASE, Adder
from tests.dispatcher.test_dispatcher import dispatcher, value
from tests.e2e.support import PATIENCE_S, until

OTHER = BASE + 0x1000
MODULE = "shardio_test_lamp"
LAMP = """
import msgspec
from shardio import MutDeviceMmio

class State(msgspec.Struct):
    sum: int

class Lamp(MutDeviceMmio):
    mmio_size = 0x100
    state_type = State
    persistent = 64

    def __init__(self):
        self.sum = 0
        %(init)s

    def read(self, offset, size):
        return %(answer)s

    def write(self, offset, size, value):
        self.sum += value

    def snapshot(self):
        return State(self.sum)

    def restore(self, state):
        self.sum = state.sum

    def detach(self):
        %(detach)s
"""


class Source:
    """The device's file, as its author edits it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / f"{MODULE}.py"
        self._edits = 0

    def write(
        self, answer: str = "self.sum", init: str = "pass", detach: str = "pass", top: str = ""
    ) -> None:
        """Another length each time: bytecode is known by its source's second and size."""
        self._edits += 1
        text = LAMP % {"answer": answer, "init": init, "detach": detach}
        self._file.write_text(f"{top}\n{text}{'#' * self._edits}\n")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    """A module that is to be had for the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    file = Source(tmp_path)
    file.write()
    yield file
    sys.modules.pop(MODULE, None)


def lamp(d: Dispatcher) -> DeviceHandle:
    """In a dispatcher that runs."""
    handle = d.add(f"{MODULE}:Lamp", mmio=BASE, name="lamp", shard="shard0")
    d.start()
    return handle


def write(port: Port, number: int, address: int = BASE) -> None:
    port.mmio_write(address, number.to_bytes(4, "little"))


def pids(d: Dispatcher) -> list[int]:
    return [shard.pid for shard in d.statistics().shards]


def test_it_answers_by_its_new_code_and_keeps_its_state(source: Source) -> None:
    with dispatcher(shards=2) as d:
        lamp(d)
        d.add(Adder, mmio=OTHER, shard="shard1")
        port = d.port(0)
        write(port, 5)
        before, old = value(port), pids(d)
        source.write(answer="self.sum + 1000")

        d.reload("lamp")

        new = pids(d)
        assert (before, value(port)) == (5, 1005)
        assert (new[0] != old[0], new[1]) == (True, old[1])
        assert d.statistics().shards[0].recoveries == 1


def test_without_a_name_every_shard_that_has_devices_is_reloaded(source: Source) -> None:
    with dispatcher(shards=2) as d:
        lamp(d)
        d.add(Adder, mmio=OTHER, shard="shard1")
        port = d.port(0)
        old = pids(d)
        write(port, 7, OTHER)

        d.reload()

        assert not set(pids(d)) & set(old)
        assert value(port, OTHER) == 0  # it keeps nothing: it begins anew


def test_no_access_is_lost_or_made_twice_meanwhile(source: Source) -> None:
    with dispatcher() as d:
        lamp(d)
        port, ended, made = d.port(0), threading.Event(), [0]

        def guest() -> None:
            while not ended.is_set():
                write(port, 1)
                made[0] += 1

        thread = threading.Thread(target=guest)
        thread.start()
        try:
            for _ in range(7):  # more than the deaths that a shard may have
                at = made[0]
                until(lambda at=at: made[0] > at, "a write goes on")  # type: ignore[misc]
                d.reload("lamp")
        finally:
            ended.set()
            thread.join(PATIENCE_S)

        assert value(port) == made[0]


def test_a_file_with_a_mistake_costs_nothing(source: Source) -> None:
    with dispatcher() as d:
        lamp(d)
        port = d.port(0)
        write(port, 3)
        old = pids(d)
        source.write(top="def (")

        with pytest.raises(MachineError, match=r"shard0 goes on as it was: importing .* raised SyntaxError"):
            d.reload("lamp")
        went_on = value(port), pids(d)
        source.write(answer="self.sum * 2")
        d.reload("lamp")

        assert went_on == (3, old)
        assert value(port) == 6


def test_a_module_that_ends_its_interpreter_costs_nothing(source: Source) -> None:
    with dispatcher() as d:
        lamp(d)
        old = pids(d)
        source.write(top="import os; os._exit(3)")

        with pytest.raises(ShardError, match="a fresh interpreter does not come up"):
            d.reload("lamp")

        assert (value(d.port(0)), pids(d)) == (0, old)


def test_a_module_that_hangs_costs_nothing(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "LOAD_S", 0.2)
    with dispatcher() as d:
        lamp(d)
        old = pids(d)
        source.write(top="import time; time.sleep(1000)")

        with pytest.raises(MachineError, match=r"goes on as it was: .* not imported within 0\.2 s"):
            d.reload("lamp")

        assert (value(d.port(0)), pids(d)) == (0, old)


def test_a_device_that_cannot_be_made_is_told_with_its_error(source: Source) -> None:
    with dispatcher(max_deaths=0) as d:
        lamp(d)
        source.write(init="raise OSError('no lamp')")

        with pytest.raises(DeviceFailed, match="no lamp"):
            d.reload("lamp")
        source.write(answer="77")  # its shard tries again and again

        with d.port(0) as port:
            assert value(port) == 77


def test_a_shard_that_does_not_end_is_killed(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "QUIT_S", 0.05)
    source.write(detach="import time; time.sleep(1000)")
    with dispatcher() as d:
        lamp(d)
        port = d.port(0)
        write(port, 9)
        source.write(answer="self.sum + 1")

        d.reload("lamp")

        assert value(port) == 10


def test_a_device_that_is_not_there_is_named(source: Source) -> None:
    with dispatcher() as d:
        lamp(d)
        with pytest.raises(MachineError, match="lump"):
            d.reload("lump")


def test_a_dispatcher_that_does_not_run_says_so(source: Source) -> None:
    with Dispatcher(shards=1) as d:
        d.add(f"{MODULE}:Lamp", mmio=BASE, name="lamp")
        d.close()
        with pytest.raises(MachineError, match="closed"):
            d.reload()
