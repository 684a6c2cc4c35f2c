"""Recordings made by a dispatcher, fed to devices: the same answers, and a bug is found where it shows."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardio import Dispatcher, GuestMemory, HostError, MachineError, RecordingError, ReplayDiffers
from shardio.fabric import Outcome, Port
from shardio.recording.format import End, Event, Events, Made, Span, What, append, create, load
from shardio.testing import replay
from tests.e2e.support import PATIENCE_S, until
from tests.recording.devices import (
    BASE,
    Astray,
    Bells,
    Board,
    Careless,
    Counter,
    Fetcher,
    Forgetful,
    Lasting,
)

MMIO, PIO = 1, 0


def recorded(
    path: Path, device: Any, use: Callable[[Port, Dispatcher], object], memory: GuestMemory | None = None,
    **arguments: Any,
) -> Path:  # fmt: skip
    """A recording of what `use` does to the device."""
    file = path / "run.rec"
    with Dispatcher(vcpus=1, shards=["io"], memory=memory, hang_deadline=PATIENCE_S) as d:
        d.add(device, name="it", **arguments)
        d.record(file)
        use(d.port(0), d)
    return file


def count(port: Port, _dispatcher: Dispatcher) -> None:
    """Ten writes, each followed by a read."""
    for number in range(5, 15):
        port.write(MMIO, BASE, 4, number)
        port.read(MMIO, BASE + number % 4, 1 << number % 4)


def test_a_device_answers_as_in_its_recording(tmp_path: Path) -> None:
    file = recorded(tmp_path, Counter, count, mmio=BASE, start=7)

    assert replay(file, Counter) == 20
    assert replay(file, Counter(7)) == 20


def test_the_first_access_that_differs_is_found(tmp_path: Path) -> None:
    file = recorded(tmp_path, Counter, count, mmio=BASE)
    with pytest.raises(ReplayDiffers) as caught:
        replay(file, Forgetful, name="it")
    difference = caught.value.difference

    # 5 + ... + 12 = 68 before, 81 with 13: the ninth read, of 2 bytes at offset 1.
    assert (difference.index, difference.address, difference.width) == (17, BASE + 1, 2)
    assert not difference.write
    assert (difference.expected, difference.got) == ("0x51", "0x44")
    assert "access 17: 2-byte read at mmio 0xd0000001: expected 0x51, got 0x44" in str(caught.value)
    assert isinstance(caught.value, AssertionError)


def test_options_of_the_recorded_device_are_given_again(tmp_path: Path) -> None:
    file = recorded(tmp_path, Counter, count, mmio=BASE, start=7)
    with pytest.raises(ReplayDiffers, match=r"access 1: .* expected 0xc, got 0x5"):
        replay(file, Counter(0))


@pytest.mark.parametrize("write", [False, True])
def test_an_access_that_failed_is_to_fail_again(tmp_path: Path, write: bool) -> None:
    def fail(port: Port, _dispatcher: Dispatcher) -> None:
        port.write(MMIO, BASE, 4, 1)
        port.write(MMIO, BASE + 8, 4, 1) if write else port.read(MMIO, BASE + 8, 4)

    file = recorded(tmp_path, Counter, fail, mmio=BASE)

    assert replay(file, Counter) == 2
    with pytest.raises(ReplayDiffers, match=r"access 1: .* expected failed, got (done|0x1)$"):
        replay(file, Careless, name="it")


def test_an_access_that_fails_where_it_did_not_is_told_with_its_error(tmp_path: Path) -> None:
    def read(port: Port, _dispatcher: Dispatcher) -> None:
        port.read(MMIO, BASE + 8, 4)

    file = recorded(tmp_path, Careless, read, mmio=BASE)
    with pytest.raises(ReplayDiffers, match=r"expected 0x0, got failed \(ValueError: offset 8\)"):
        replay(file, Counter, name="it")


@pytest.mark.parametrize("posted", [False, True])
def test_strings_and_posted_writes_are_replayed(tmp_path: Path, posted: bool) -> None:
    def use(port: Port, _dispatcher: Dispatcher) -> None:
        port.write_string(MMIO, BASE, 2, b"\1\0\2\0\3\0")
        port.write(MMIO, BASE, 4, 10)
        assert port.read(MMIO, BASE, 4) == (Outcome.ANSWERED, 16)
        port.read_string(MMIO, BASE, 2, 2)

    file = recorded(tmp_path, Counter, use, mmio=BASE, posted=posted)

    assert replay(file, Counter) == 3 + 1 + 1 + 2


def test_guest_memory_that_a_device_reads_is_given_to_it_again(tmp_path: Path) -> None:
    def use(port: Port, _dispatcher: Dispatcher) -> None:
        assert port.read(PIO, 0x80, 1) == (Outcome.ANSWERED, 9)
        for value, address in ((5, 0x1000), (6, 0x1001), (7, 0x1000)):
            memory.write(address, bytes([value]))
            port.write(PIO, 0x80, 4, address)
            port.read(PIO, 0x80, 1)

    with GuestMemory(0x10000) as memory:
        memory.write(0x2000, b"\x09")
        file = recorded(tmp_path, Fetcher, use, memory, pio=0x80)

    assert replay(file, Fetcher) == 7
    with pytest.raises(ReplayDiffers, match=r"access 1: .* got a read of 1 bytes of guest memory at 0x1001"):
        replay(file, Astray, name="it")


def test_a_device_that_moves_is_replayed_where_it_is(tmp_path: Path) -> None:
    def use(port: Port, dispatcher: Dispatcher) -> None:
        port.write(MMIO, BASE, 4, 3)
        dispatcher.move("it", mmio=BASE + 0x1000)
        port.read(MMIO, BASE + 0x1000, 4)

    assert replay(recorded(tmp_path, Counter, use, mmio=BASE), Counter) == 2


def test_a_manager_of_devices_is_replayed(tmp_path: Path) -> None:
    def use(port: Port, _dispatcher: Dispatcher) -> None:
        port.write(MMIO, BASE + 0x10, 4, 3)
        assert port.read(MMIO, BASE + 0x10, 4) == (Outcome.ANSWERED, 5)
        port.read(MMIO, BASE, 4)

    assert replay(recorded(tmp_path, Board, use, mmio=BASE, size=0x20), Board) == 3


def kill_the_shard(port: Port, dispatcher: Dispatcher) -> None:
    """Two accesses, a kill, two accesses."""
    [shard] = [shard for shard in dispatcher.supervisor.shards if shard.pid]
    for _ in range(2):
        port.write(MMIO, BASE, 4, 4)
        port.read(MMIO, BASE, 4)
        before = shard.pid
        os.kill(before, signal.SIGKILL)
        until(lambda before=before: shard.pid not in (0, before), "a successor")  # type: ignore[misc]


def test_a_device_whose_shard_died_has_a_second_life(tmp_path: Path) -> None:
    file = recorded(tmp_path, Counter, kill_the_shard, mmio=BASE)

    assert len(load(file).lives("it")) == 3
    replay(file, Counter)
    with pytest.raises(RecordingError, match=r"3 lives of device 'it'; give the class"):
        replay(file, Counter())


def test_a_state_that_outlived_the_shard_is_given_again(tmp_path: Path) -> None:
    file = recorded(tmp_path, Lasting, kill_the_shard, mmio=BASE)

    assert [life.made.state for life in load(file).lives("it")][1:] == [
        (4).to_bytes(8, "little"), (8).to_bytes(8, "little"),
    ]  # fmt: skip
    replay(file, Lasting)


def test_which_device_is_meant(tmp_path: Path) -> None:
    file = tmp_path / "run.rec"
    with Dispatcher(vcpus=1, shards=2) as d:
        for number in range(2):
            d.add(Counter, mmio=BASE + number * 0x1000, name=f"c{number}", start=number)
        d.add(Forgetful, mmio=BASE + 0x2000, name="forgetful")
        d.record(file)
        for number in range(3):
            d.port(0).read(MMIO, BASE + number * 0x1000, 4)

    assert replay(file, Counter, name="c1") == replay(file, Forgetful) == 1
    with pytest.raises(RecordingError, match=r"has 2 devices .* name the one that is meant: c0, c1"):
        replay(file, Counter)


def test_only_what_is_named_is_recorded(tmp_path: Path) -> None:
    file = tmp_path / "run.rec"
    with Dispatcher(vcpus=1, shards=1) as d:
        d.add(Counter, mmio=BASE, name="one")
        d.add(Counter, mmio=BASE + 0x1000, name="two")
        d.record(file, "two")
        d.port(0).read(MMIO, BASE, 4)
        d.port(0).read(MMIO, BASE + 0x1000, 4)

    assert {name: lives[0].accesses for name, lives in load(file).devices.items()} == {"two": 1}


def test_what_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    with Dispatcher(vcpus=1, shards=1) as d:
        d.add(Counter, mmio=BASE, name="one")
        with pytest.raises(HostError, match=r"no recording in .*name a file"):
            d.record(tmp_path / "no" / "run.rec")
        d.record(tmp_path / "run.rec", "tow")
        with pytest.raises(MachineError, match="recorded already"):
            d.record(tmp_path / "run.rec")
        with pytest.raises(MachineError, match="no device 'tow' to record"):
            d.start()


def test_a_recording_goes_on_while_the_machine_runs(tmp_path: Path) -> None:
    def use(port: Port, _dispatcher: Dispatcher) -> None:
        port.read(MMIO, BASE, 4)
        until(lambda: (tmp_path / "run.rec").stat().st_size > 100, "it is in the file")

    recorded(tmp_path, Counter, use, mmio=BASE)


def test_each_element_and_each_direction_is_in_the_file(tmp_path: Path) -> None:
    file = recorded(tmp_path, Counter, count, mmio=BASE)
    [life] = load(file).lives("it")

    assert (life.made.kind, life.made.options) == ("tests.recording.devices:Counter", {})
    assert [(each.what, each.address, each.width, each.value) for each in life.events[:4]] == [  # type: ignore[union-attr]
        (What.WRITE, BASE, 4, 5), (What.READ, BASE + 1, 2, 5),
        (What.WRITE, BASE, 4, 6), (What.READ, BASE + 2, 4, 11),
    ]  # fmt: skip


def test_a_doorbell_is_rung_again_with_the_guest_memory_that_it_made_the_device_read(tmp_path: Path) -> None:
    file = tmp_path / "run.rec"
    fd = create(file)
    for frame in (
        Made("it", "x:Bells", {}, [Span(MMIO, BASE, 0x100)], None, True),
        Events("it", 0, [
            Event(What.DOORBELL, value=0), Event(What.DMA, address=0x1000, width=1, data=b"\x07"),
            Event(What.READ, MMIO, BASE, 4, 7),
        ]),
        End(),
    ):  # fmt: skip
        append(fd, frame)
    os.close(fd)

    assert replay(file, Bells) == 1
