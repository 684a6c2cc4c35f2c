"""The warm spare: what it does before it is needed, when the next one starts, what its own death does."""

from __future__ import annotations

import os
import select
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shardio.fabric import Outcome
from shardio.supervisor.process_state import process_state
from tests.e2e.support import until
from tests.supervisor.devices import Journal, Troubled
from tests.supervisor.loaded import IMPORTED, ORDERS
from tests.supervisor.support import BASE, MMIO, Cluster, cluster

AGE = "tests.supervisor.loaded:Age"


def spare(c: Cluster) -> int:
    """The pid of the spare, once it is warm."""
    c.supervisor.call(c.supervisor.keep_spare)
    until(lambda: c.supervisor.spare_pid != 0, "a spare is warm")
    return c.supervisor.spare_pid


def kill(c: Cluster) -> None:
    """SIGKILL to shard 0."""
    os.kill(c.shards[0].pid, signal.SIGKILL)


def kill_and_wait(pid: int) -> None:
    """SIGKILL to a process; it is dead, but not reaped."""
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([pidfd], [], [], 10.0)[0]
    os.close(pidfd)


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that tells `AGE`'s module, where it is imported, what to do: "raise" or "die"."""
    file = tmp_path / "orders"
    monkeypatch.setenv(ORDERS, str(file))
    return file


def test_the_successor_is_the_spare_and_has_its_devices_modules() -> None:
    with cluster() as c:
        c.add(AGE, name="age")
        client, warm = c.client(), spare(c)
        killed = time.monotonic_ns()

        kill(c)
        outcome, imported = client.read(MMIO, BASE, 8)

        assert (outcome, c.shards[0].pid) == (Outcome.ANSWERED, warm)
        assert imported < killed


def test_a_device_that_comes_later_is_loaded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = tmp_path / "imported"
    monkeypatch.setenv(IMPORTED, str(imported))
    with cluster(shards=2) as c:
        c.add(Journal)
        client, warm = c.client(), spare(c)
        c.add(AGE, BASE + 0x1000, shards=(1,), name="age")
        c.supervisor.call(c.supervisor.renew_spare)
        until(lambda: str(warm) in imported.read_text().split(), "the spare has loaded it")

        kill(c)

        assert client.read(MMIO, BASE, 4)[0] is Outcome.ANSWERED
        assert c.shards[0].pid == warm


def test_there_is_another_spare_once_the_successor_holds_its_devices(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with cluster() as c:
        c.add(Troubled, path=str(tmp_path / "log"), orders="\nwait", gate=str(gate))
        client, _ = c.client(), spare(c)

        kill(c)
        until(lambda: c.shards[0].spawns == 2, "there is a successor")
        while_it_waits = c.supervisor.call(lambda: c.supervisor._spares.pid)
        os.close(os.open(gate, os.O_WRONLY))
        outcome = client.read(MMIO, BASE, 4)[0]

        assert (outcome, while_it_waits) == (Outcome.ANSWERED, 0)
        until(lambda: c.supervisor.spare_pid != 0, "there is another spare")


def test_a_successor_that_dies_before_it_holds_its_devices_gets_one_itself(tmp_path: Path) -> None:
    with cluster() as c:
        c.add(Troubled, path=str(tmp_path / "log"), orders="\ndie")
        client, _ = c.client(), spare(c)

        kill(c)
        outcome = client.read(MMIO, BASE, 4)[0]

        assert (outcome, c.shards[0].spawns) == (Outcome.ANSWERED, 3)
        assert (tmp_path / "log").read_bytes() == b"cccr"


def test_a_successor_that_cannot_make_all_its_devices_serves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "\n" + " " * 40_000  # so that the two devices go in two messages
    with cluster() as c, ThreadPoolExecutor() as pool:
        c.add(Troubled, name="first", path=str(tmp_path / "first"), orders="\nraise" + long)
        c.add(Troubled, BASE + 0x1000, name="second", path=str(tmp_path / "second"), orders=long)
        client, _ = c.client(), spare(c)
        kills: list[int] = []
        with monkeypatch.context() as patch:
            patch.setattr(c.shards[0], "kill", lambda: kills.append(c.shards[0].spawns))
            kill(c)
            answer = pool.submit(client.read, MMIO, BASE, 4)
            until(lambda: 2 in kills, "the supervisor wants the successor dead")
            for _ in range(3):  # its loop has come round, so it would have served by now
                c.call("second", "read", 0, 4)
        c.supervisor.call(c.shards[0].kill)

        assert answer.result() == (Outcome.ANSWERED, 4)
        assert (c.shards[0].spawns, c.fabric.shard_counters(0).malformed) == (3, 0)


def test_a_spare_that_dies_is_replaced() -> None:
    with cluster() as c:
        c.add(Journal)
        client, first = c.client(), spare(c)

        os.kill(first, signal.SIGKILL)
        until(lambda: c.supervisor.spare_pid not in (0, first), "there is another spare")
        kill(c)

        assert client.read(MMIO, BASE, 4)[0] is Outcome.ANSWERED
        assert c.shards[0].spawns == 2


def test_a_spare_that_dies_together_with_a_shard_is_no_successor() -> None:
    with cluster() as c:
        c.add(Journal)
        client, first = c.client(), spare(c)

        c.supervisor.call(lambda: [kill_and_wait(pid) for pid in (c.shards[0].pid, first)])

        assert client.read(MMIO, BASE, 4)[0] is Outcome.ANSWERED
        assert c.shards[0].spawns == 2


def test_a_spare_that_is_stopped_is_no_successor() -> None:
    """It would count as making its devices while the guest waits."""
    with cluster() as c:
        c.add(Journal)
        client, stopped = c.client(), spare(c)
        os.kill(stopped, signal.SIGSTOP)
        until(lambda: process_state(stopped).stopped, "it is stopped")  # type: ignore[union-attr]

        kill(c)
        outcome, _ = client.read(MMIO, BASE, 8)

        assert outcome is Outcome.ANSWERED
        assert c.shards[0].pid != stopped


def test_a_module_that_a_spare_cannot_import_is_left_for_the_shard(orders: Path) -> None:
    with cluster() as c:
        c.add(AGE, name="age")
        client = c.client()
        orders.write_text("raise")
        spare(c)
        orders.unlink()

        kill(c)

        assert client.read(MMIO, BASE, 8)[0] is Outcome.ANSWERED
        assert c.shards[0].spawns == 2


def test_a_spare_that_dies_of_what_it_loads_is_not_replaced_again_and_again(
    orders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with cluster() as c:
        c.add(AGE, name="age")
        client = c.client()
        orders.write_text("die")
        c.supervisor.call(c.supervisor.keep_spare)
        until(lambda: "the spare interpreter died" in caplog.text, "the spare died")
        left = c.supervisor.call(lambda: c.supervisor._spares.pid)
        orders.unlink()

        kill(c)

        assert left == 0
        assert client.read(MMIO, BASE, 8)[0] is Outcome.ANSWERED
        assert caplog.text.count("the spare interpreter died") == 1
