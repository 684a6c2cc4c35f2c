"""`Dispatcher.trace`: what vCPUs and shards do, for whoever asks."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from shardio import Dispatcher, HostError, MachineError, MmioRange
from shardio.dispatcher.tracing import Trace
from shardio.fabric import Port
from shardio.trace import Access, Doorbell, Life, Record
from shardio.trace.values import Outcome, Way
from tests.dispatcher.devices import BASE, MMIO, Adder, Board, Deadly, Ports, add_numbers
from tests.e2e.support import PATIENCE_S, until
from tests.trace.reading import read

FAST, NOWHERE = BASE + 0x1000, BASE + 0x2000


@pytest.fixture(scope="module", autouse=True)
def helpers() -> None:
    """What `multiprocessing` starts once and keeps is there before the first test."""
    resource_tracker.ensure_running()


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    """Two vCPUs; "adder" at BASE and "fast", which is posted to, at FAST, in one shard."""
    with Dispatcher(vcpus=2, shards=["io"], hang_deadline=PATIENCE_S) as made:
        made.add(Adder, mmio=BASE, name="adder")
        made.add(Adder, mmio=FAST, name="fast", posted=True)
        yield made
    vars(made).clear()  # pytest holds it until after the look at what a test leaves open


def accesses(trace: Trace) -> list[Access]:
    """The accesses among the records."""
    return [record for record in trace.records() if isinstance(record, Access)]


def told(records: list[Record], subject: str) -> list[str]:
    """What became of a vCPU or a shard."""
    return [record.event for record in records if isinstance(record, Life) and record.subject == subject]


def use(port: Port) -> None:
    """A write, a read, a posted write and a read behind it, and a read that nobody claims."""
    port.write(MMIO, BASE, 4, 5)
    port.read(MMIO, BASE, 4)
    port.write(MMIO, FAST, 2, 7)
    port.read(MMIO, FAST, 2)
    port.read(MMIO, NOWHERE, 1)


def test_every_access_is_traced_with_both_of_its_sides(dispatcher: Dispatcher) -> None:
    trace = dispatcher.trace()
    use(dispatcher.port(1))
    dispatcher.stop()
    seen = accesses(trace)

    assert [(a.vcpu, a.device, a.shard, a.address, a.width, a.write, a.value) for a in seen] == [
        (1, "adder", "io", BASE, 4, True, 5),
        (1, "adder", "io", BASE, 4, False, 5),
        (1, "fast", "io", FAST, 2, True, 7),
        (1, "fast", "io", FAST, 2, False, 7),
        (1, None, None, NOWHERE, 1, False, 0xFF),
    ]
    assert [a.way for a in seen] == [Way.WAITED, Way.WAITED, Way.POSTED, Way.WAITED, Way.NOWHERE]
    assert [a.outcome for a in seen] == [Outcome.ANSWERED] * 4 + [Outcome.UNCLAIMED]
    for access in seen[:2]:
        assert access.service_time_ns is not None
        assert access.wait_ns is not None
        assert access.service_ns is not None
        assert access.time_ns < access.service_time_ns < access.time_ns + access.wait_ns
        assert access.service_ns > 0
    assert trace.lost == 0


def test_a_trace_may_begin_at_any_time(dispatcher: Dispatcher) -> None:
    use(dispatcher.port(0))
    trace = dispatcher.trace()
    dispatcher.port(0).write(MMIO, BASE, 4, 9)
    trace.close()
    dispatcher.port(0).write(MMIO, BASE, 4, 10)

    assert [access.value for access in accesses(trace)] == [9]


def test_one_trace_follows_the_other(dispatcher: Dispatcher) -> None:
    port = dispatcher.port(0)
    with dispatcher.trace() as first:
        port.write(MMIO, BASE, 4, 1)
    with dispatcher.trace() as second:
        port.write(MMIO, BASE, 4, 2)

    assert [access.value for access in accesses(first) + accesses(second)] == [1, 2]


@pytest.mark.parametrize(("what", "devices"), [
    (["adder"], {"adder"}), (["unclaimed"], {None}), (["fast", "unclaimed"], {"fast", None}),
    (["all"], {"adder", "fast", None}),
])  # fmt: skip
def test_what_is_asked_for_is_traced(
    dispatcher: Dispatcher, what: list[str], devices: set[str | None]
) -> None:
    trace = dispatcher.trace(*what)
    use(dispatcher.port(0))

    assert {access.device for access in accesses(trace)} == devices


def test_devices_that_come_later_are_traced_by_name(dispatcher: Dispatcher) -> None:
    port = dispatcher.port(0)
    dispatcher.add(Adder, mmio=NOWHERE, name="late")
    trace = dispatcher.trace("late")
    dispatcher.remove("late")
    dispatcher.add(Adder, mmio=NOWHERE + 0x1000, name="late")
    trace.records()  # by now it has seen that
    port.write(MMIO, NOWHERE + 0x1000, 4, 3)

    assert [(access.device, access.value) for access in accesses(trace)] == [("late", 3)]


def test_a_device_that_is_not_there_is_named(dispatcher: Dispatcher) -> None:
    dispatcher.start()
    with pytest.raises(MachineError, match=r"no device 'addr' to trace.*adder"):
        dispatcher.trace("addr")

    dispatcher.trace("adder").close()


def test_a_device_that_is_not_there_by_the_start_is_named(dispatcher: Dispatcher) -> None:
    dispatcher.trace("late")
    with pytest.raises(MachineError, match=r"no device 'late' to trace"):
        dispatcher.start()


def test_there_is_one_trace_at_a_time(dispatcher: Dispatcher) -> None:
    with dispatcher.trace(), pytest.raises(MachineError, match="traced already"):
        dispatcher.trace()

    dispatcher.trace().close()


@pytest.mark.parametrize("kept", [0, -1])
def test_a_trace_keeps_something(dispatcher: Dispatcher, kept: int) -> None:
    with pytest.raises(MachineError, match="keep 1 or more"):
        dispatcher.trace(kept=kept)


def test_the_last_records_are_kept_and_the_others_counted(dispatcher: Dispatcher) -> None:
    trace = dispatcher.trace("unclaimed", kept=10)
    for _ in range(25):
        dispatcher.port(0).read(MMIO, NOWHERE, 4)

    assert len(accesses(trace)) == 10
    assert trace.lost == 15


def test_processes_that_use_a_port_are_traced(dispatcher: Dispatcher) -> None:
    trace = dispatcher.trace("adder")
    process = multiprocessing.get_context("spawn").Process(target=add_numbers, args=(dispatcher.port(1), 50))
    process.start()
    process.join()
    process.close()

    assert [(access.vcpu, access.value) for access in accesses(trace)] == [(1, n) for n in range(50)]


def test_a_shards_death_and_its_successor_are_in_the_trace() -> None:
    with Dispatcher(vcpus=1, shards=["io"], hang_deadline=PATIENCE_S) as d:
        d.add(Deadly, mmio=BASE, name="deadly", policy="fail")
        trace = d.trace()
        port = d.port(0)
        port.read(MMIO, BASE + 8, 4)
        port.read(MMIO, BASE, 4)
        until(lambda: len(told(trace.records(), "shard io")) == 3, "the recovery is told")
        until(lambda: accesses(trace)[-1].service_ns is not None, "the shard has recorded what it did")
        seen = accesses(trace)
        events = told(trace.records(), "shard io")

    assert [event.partition(",")[0].partition(":")[0] for event in events] == [
        "serves", "ShardDied", "ShardRecovered",
    ]  # fmt: skip
    assert [(a.address, a.outcome, a.service_ns is None) for a in seen] == [
        (BASE + 8, Outcome.REFUSED, True),
        (BASE, Outcome.ANSWERED, False),
    ]


def test_who_wakes_a_shard_is_traced(dispatcher: Dispatcher) -> None:
    trace = dispatcher.trace()
    port = dispatcher.port(1)
    until(lambda: dispatcher.fabric.view.shard[0].need_wakeup & 1 == 1, "the shard sleeps")
    port.read(MMIO, BASE, 4)

    assert [(b.vcpu, b.shard) for b in trace.records() if isinstance(b, Doorbell)][:1] == [(1, "io")]


def test_a_manager_of_devices_is_traced_as_one() -> None:
    with Dispatcher(vcpus=1, shards=1) as d:
        d.add(Board, ranges=[MmioRange(BASE, 0x20)], name="board")
        d.add(Ports, pio=0x80, name="ports")
        trace = d.trace()
        d.port(0).read(MMIO, BASE + 0x10, 4)
        d.port(0).read(0, 0x81, 1)

        assert [(a.device, a.space, a.value) for a in accesses(trace)] == [
            ("board", "mmio", 2), ("ports", "pio", 0x41),
        ]  # fmt: skip


# ---- where it goes ----


def test_a_text_file_has_a_line_for_each_record(dispatcher: Dispatcher, tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    with dispatcher.trace("adder", "unclaimed", file=file) as trace:
        use(dispatcher.port(0))
    lines = [line for line in file.read_text().splitlines() if "vCPU 0" in line and "wakes" not in line]

    assert [line.split()[3:8] for line in lines[:2]] == [
        ["write", "4", "mmio", f"{BASE:#x}", "<-"], ["read", "4", "mmio", f"{BASE:#x}", "->"],
    ]  # fmt: skip
    assert lines[2].split()[3:8] == ["read", "1", "mmio", f"{NOWHERE:#x}", "-"]
    assert trace.records() == []


def test_text_goes_to_a_stream_while_the_dispatcher_runs(dispatcher: Dispatcher) -> None:
    stream = io.StringIO()
    dispatcher.trace(file=stream)
    dispatcher.port(0).write(MMIO, BASE, 4, 0x1234)

    until(lambda: "<- 0x1234 adder @io answered" in stream.getvalue(), "the line")


def test_a_file_for_perfetto_shows_accesses_on_both_tracks(dispatcher: Dispatcher, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    dispatcher.trace(file=file)
    use(dispatcher.port(0))
    use(dispatcher.port(1))
    dispatcher.close()
    chart = read(file)

    ways = [each.arguments["way"] for each in chart.on("vCPU 0")]
    assert ways == ["waited", "waited", "posted", "waited", "nowhere"]
    assert len(chart.on("vCPU 1")) == 5
    assert len(chart.on("adder @io")) == len(chart.on("fast @io")) == 4
    assert len(chart.flows) == 8
    lives = [name for track, name in chart.instants if chart.tracks[track] == "shard io"]
    assert lives[0].startswith("serves")


@pytest.mark.parametrize("name", ["trace.json", "trace.txt"])
def test_a_trace_that_never_began_is_a_file_all_the_same(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    with Dispatcher(vcpus=1) as d:
        d.trace(file=file)

    assert file.exists()
    assert name != "trace.json" or read(file).slices == []


def test_a_file_that_cannot_be_written_is_named(dispatcher: Dispatcher, tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"no-such.*name a file"):
        dispatcher.trace(file=tmp_path / "no-such" / "trace.json")

    dispatcher.trace().close()


def test_a_stream_that_takes_nothing_more_ends_the_writing_alone(
    dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream, caplog.at_level(logging.WARNING, "shardio.trace"):
        trace = dispatcher.trace(file=stream)
        use(dispatcher.port(0))
        until(lambda: trace.error is not None, "the error")
        use(dispatcher.port(0))
        trace.close()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)  # what the stream still holds goes there

    assert "Broken pipe" in str(trace.error)
    assert "cannot be written any more" in caplog.text


def test_a_vmm_that_forks_leaves_the_trace_to_itself(dispatcher: Dispatcher) -> None:
    trace = dispatcher.trace()
    port = dispatcher.port(0)
    pid = os.fork()
    if pid == 0:
        dispatcher.close()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    port.write(MMIO, BASE, 4, 5)

    assert [access.value for access in accesses(trace)] == [5]
