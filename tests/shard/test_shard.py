"""A real shard, without KVM: handler forms, failures, order, replicas, and host I/O beside a hot ring."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from shardio import MachineError
from shardio.fabric import Outcome
from tests.e2e.support import until
from tests.supervisor.devices import (
    Bulky,
    Journal,
    Leaving,
    Native,
    Parent,
    Raising,
    Releasing,
    Stillborn,
    Ticking,
    Views,
    Which,
)
from tests.supervisor.support import BASE, MMIO, cluster

KEEP = """
#include <stdint.h>

/* Keeps what is written; reads give it plus the offset. Fails at offset 0x80. */
int keep(void *context, uint64_t offset, uint32_t size, int write, uint64_t *value)
{
    uint64_t *kept = context;
    if (write)
        *kept = *value;
    else
        *value = *kept + offset;
    return offset == 0x80;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A shared library with a native handler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) for a native handler: apt-get install gcc")
    folder: Path = tmp_path_factory.mktemp("native")
    (folder / "keep.c").write_text(KEEP)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", "keep.so", "keep.c"], cwd=folder, check=True)
    return str(folder / "keep.so")


def test_a_native_handler_answers_and_fails(library: str) -> None:
    with cluster() as c:
        route = c.add(Native, library=library)
        client = c.client()

        outcomes = [client.write(MMIO, BASE, 8, 0x1122), client.write(MMIO, BASE + 0x80, 4, 5)]
        answers = [client.read(MMIO, BASE + 3, 2), client.read(MMIO, BASE + 0x80, 4)]

        assert outcomes == [Outcome.ANSWERED, Outcome.NOT_ANSWERED]
        assert answers == [(Outcome.ANSWERED, 5 + 3), (Outcome.NOT_ANSWERED, 0xFFFF_FFFF)]
        assert c.fabric.service(0, route.index).refused == 2


def test_a_memoryview_handler_answers() -> None:
    with cluster() as c:
        c.add(Views)
        client = c.client()

        outcome = client.write(MMIO, BASE, 4, 0x55)
        answers = [client.read(MMIO, BASE, size) for size in (1, 2, 4, 8)]

        assert outcome is Outcome.ANSWERED
        assert answers == [(Outcome.ANSWERED, int("55" * size, 16)) for size in (1, 2, 4, 8)]


def test_a_process_that_a_device_starts_can_be_terminated() -> None:
    with cluster() as c:
        c.add(Parent)
        assert c.call("Parent", "started_and_terminated") == -signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_that_is_for_the_vmm_ends_no_shard(number: signal.Signals) -> None:
    with cluster() as c:
        c.add(Views)
        client, pid = c.client(), c.shards[0].pid
        os.kill(pid, number)
        outcomes = [client.write(MMIO, BASE, 4, 0x55) for _ in range(100)]
        assert (set(outcomes), c.shards[0].pid) == ({Outcome.ANSWERED}, pid)


def test_a_device_may_be_made_of_and_give_more_than_a_message_holds() -> None:
    content = bytes(range(256)) * 4096
    with cluster() as c:
        pid = c.shards[0].pid
        c.add(Bulky, content=content)
        given = c.call("Bulky", "doubled", content)
        assert given == content + content
        assert c.shards[0].pid == pid


def test_a_handler_that_releases_its_view_spoils_no_later_access() -> None:
    with cluster() as c:
        c.add(Releasing)
        c.add(Views, BASE + 0x1000)
        client = c.client()

        refused = [client.read(MMIO, BASE + 8, 4)[0] for _ in range(2)]
        outcomes = [client.write(MMIO, BASE + at, 4, 0x55) for at in (0, 0, 0x1000)]
        answers = [client.read(MMIO, BASE + at, 4) for at in (0, 0, 0x1000)]

        assert refused == [Outcome.NOT_ANSWERED] * 2
        assert outcomes == [Outcome.ANSWERED] * 3
        assert answers == [(Outcome.ANSWERED, 0x5555_5555)] * 3


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_an_exception_is_logged_once_for_its_place(capfd: pytest.CaptureFixture[str], write: bool) -> None:
    with cluster() as c:
        c.add(Raising)
        client = c.client()

        answers = {client.write(MMIO, BASE, 4, 0) if write else client.read(MMIO, BASE, 4) for _ in range(5)}

        assert answers == {Outcome.NOT_ANSWERED if write else (Outcome.NOT_ANSWERED, 0xFFFF_FFFF)}
    logged = capfd.readouterr().err
    what = "no writing" if write else "no reading"
    assert logged.count(f"ValueError: {what}") == 1
    assert logged.count("Traceback (most recent call last)") == 1
    assert "device Raising failed a " + ("write" if write else "read") in logged


def test_posted_and_synchronous_writes_and_strings_keep_their_order() -> None:
    with cluster() as c:
        c.add(Journal, posted=True)
        client = c.client()

        for n in range(0, 90, 3):
            client.write(MMIO, BASE, 1, n)
            client.write_string(MMIO, BASE, 1, bytes([n + 1, n + 2]))
        count = client.read(MMIO, BASE, 4)

        assert count == (Outcome.ANSWERED, 90)
        assert c.call("Journal", "values") == list(range(90))


def test_a_read_string_gives_each_element_in_order() -> None:
    with cluster() as c:
        c.add(Ticking)
        client = c.client()

        outcome, data = client.read_string(MMIO, BASE, 8, 20)

        elements = [int.from_bytes(data[8 * n : 8 * n + 8], "little") for n in range(20)]
        assert outcome is Outcome.ANSWERED
        assert elements == sorted(elements)


def test_replicas_of_an_immutable_device_answer_in_two_processes() -> None:
    with cluster(vcpus=2, shards=2) as c:
        c.add(Which, shards=(0, 1))
        clients = [c.client(vcpu) for vcpu in range(2)]

        pids = [client.read(MMIO, BASE, 8)[1] for client in clients]

        assert pids == [shard.pid for shard in c.shards]


@pytest.mark.parametrize("posted", [False, True], ids=["synchronous", "posted"])
def test_timers_run_beside_a_hot_ring(posted: bool) -> None:
    with cluster() as c:
        c.add(Ticking)
        c.add(Journal, BASE + 0x1000, posted=posted)
        client = c.client()
        before = client.read(MMIO, BASE, 8)[1]

        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            for _ in range(100):
                client.write(MMIO, BASE + 0x1000, 4, 0)
        ticks = client.read(MMIO, BASE, 8)[1] - before

        assert ticks >= 10  # 100 on an idle machine


def test_a_shard_that_sleeps_is_woken_and_no_wake_up_is_lost() -> None:
    with cluster() as c:
        c.add(Journal)
        client = c.client()

        for n in range(20):
            until(lambda: c.fabric.view.shard[0].need_wakeup & 1 != 0, "it sleeps")
            client.write(MMIO, BASE, 4, n)

        assert c.call("Journal", "values") == list(range(20))
        assert c.fabric.shard_counters(0).sleeps >= 20
        assert c.fabric.shard_counters(0).lost_wakeups == 0
        assert c.fabric.vcpu_counters(0).doorbells >= 20


@pytest.mark.parametrize(
    ("how", "text"),
    [("exit", "SystemExit: 3"), ("interrupt", "KeyboardInterrupt"), ("unspeakable", "Unspeakable")],
)
def test_whatever_a_constructor_raises_is_the_answer_and_the_shard_lives(how: str, text: str) -> None:
    with cluster() as c:
        pid = c.shards[0].pid
        with pytest.raises(MachineError, match=text):
            c.add(Stillborn, how=how)
        c.add(Journal, BASE + 0x1000)
        assert c.call("Journal", "values") == []
        assert c.shards[0].pid == pid


def test_a_device_that_fails_to_detach_keeps_no_other_from_it(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("first", "second", "third")]
    with cluster() as c:
        for number, path in enumerate(paths):
            c.add(Leaving, BASE + 0x1000 * number, name=path.name, path=str(path), raises=number == 1)
    assert [path.read_text() for path in paths] == ["d"] * 3
