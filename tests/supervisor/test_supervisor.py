"""Real shard processes that die and hang, without KVM: the vCPUs are clients of this process."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from shardio import MachineError, ShardError
from shardio.devices import Counter
from shardio.fabric import Outcome, Port
from shardio.shard import protocol
from shardio.supervisor.failover import Policy
from tests.supervisor.devices import Deadly, Filed, Hanging, Journal
from tests.supervisor.support import BASE, MMIO, PATIENCE_S, Cluster, cluster


def access(client: Port, write: bool, base: int = BASE) -> Outcome:
    """One access of 4 bytes."""
    return client.write(MMIO, base, 4, 1) if write else client.read(MMIO, base, 4)[0]


DIRECTIONS = pytest.mark.parametrize("write", [False, True], ids=["read", "write"])


@DIRECTIONS
def test_a_request_that_no_owner_has_taken_waits_for_the_successor(tmp_path: Path, write: bool) -> None:
    with cluster() as c:
        c.add(Filed, path=str(tmp_path / "log"))
        client = c.client()
        assert access(client, write) is Outcome.ANSWERED

        os.kill(c.shards[0].pid, signal.SIGKILL)
        outcome = access(client, write)

        assert outcome is Outcome.ANSWERED
        assert (tmp_path / "log").read_bytes() == (b"ww" if write else b"rr")
        assert c.shards[0].spawns == 2


@DIRECTIONS
@pytest.mark.parametrize("policy", [None, Policy.REPLAY, Policy.FAIL])
def test_a_taken_request_is_treated_by_its_policy(tmp_path: Path, write: bool, policy: Policy | None) -> None:
    with cluster() as c:
        c.add(Deadly, path=str(tmp_path / "log"), times=1, policy=policy)
        client = c.client()

        outcome = access(client, write)

        replayed = policy is Policy.REPLAY or (policy is None and not write)
        assert outcome is (Outcome.ANSWERED if replayed else Outcome.NOT_ANSWERED)
        assert (tmp_path / "log").read_bytes() == (b"w" if write else b"r") * (2 if replayed else 1)
        assert access(client, write) is Outcome.ANSWERED


@DIRECTIONS
def test_a_request_that_kills_two_owners_quarantines_its_range_alone(tmp_path: Path, write: bool) -> None:
    with cluster() as c:
        c.add(Deadly, path=str(tmp_path / "deadly"), times=9, policy=Policy.REPLAY)
        c.add(Filed, BASE + 0x1000, path=str(tmp_path / "good"))
        client = c.client()

        outcomes = [access(client, write), access(client, write), access(client, write, BASE + 0x1000)]

        assert outcomes == [Outcome.NOT_ANSWERED, Outcome.NOT_ANSWERED, Outcome.ANSWERED]
        assert len((tmp_path / "deadly").read_bytes()) == 2


@DIRECTIONS
def test_a_shard_that_dies_five_times_is_given_up_and_the_rest_runs_on(tmp_path: Path, write: bool) -> None:
    with cluster(shards=2) as c:
        c.add(Deadly, path=str(tmp_path / "deadly"), times=99, policy=Policy.FAIL)
        c.add(Filed, BASE + 0x1000, shards=(1,), path=str(tmp_path / "good"))
        client = c.client()

        outcomes = [access(client, write) for _ in range(7)]
        good = access(client, write, BASE + 0x1000)

        assert (outcomes, good) == ([Outcome.NOT_ANSWERED] * 7, Outcome.ANSWERED)
        assert c.shards[0].quarantined
        assert not c.shards[0].alive
        assert len((tmp_path / "deadly").read_bytes()) == 5


@DIRECTIONS
@pytest.mark.parametrize("way", ["stop", "gil", "loop", "block"])
def test_a_shard_that_hangs_is_killed_after_its_deadline(tmp_path: Path, way: str, write: bool) -> None:
    with cluster(hang_deadline=0.3) as c:
        c.add(Hanging, path=str(tmp_path / "log"), way=way)
        client = c.client()
        began = time.monotonic()

        outcome = access(client, write)

        assert outcome is (Outcome.NOT_ANSWERED if write else Outcome.ANSWERED)
        assert time.monotonic() - began >= 0.3
        assert access(client, write) is Outcome.ANSWERED
        assert c.shards[0].spawns == 2


def test_posted_writes_of_a_killed_shard_are_applied_once_in_order_or_never(tmp_path: Path) -> None:
    with cluster() as c:
        c.add(Filed, posted=True, path=str(tmp_path / "log"))
        client = c.client()

        for n in range(300):
            assert client.write(MMIO, BASE, 4, n) is Outcome.ANSWERED
            if n in (100, 200):
                os.kill(c.shards[0].pid, signal.SIGKILL)
        seen = client.read(MMIO, BASE, 4)

        assert 298 <= seen[1] - 1 <= 300  # each death costs one write at most: the one that was being applied
        assert c.shards[0].spawns == 3


def test_devices_come_and_go_while_clients_run() -> None:
    with cluster(vcpus=2) as c:
        c.add(Journal, name="stays")
        clients = [c.client(vcpu) for vcpu in range(2)]
        stop = threading.Event()
        counts = [0, 0]

        def run(vcpu: int) -> None:
            while not stop.is_set():
                assert clients[vcpu].write(MMIO, BASE, 4, vcpu) is Outcome.ANSWERED
                clients[vcpu].read(MMIO, BASE + 0x1000, 4)
                counts[vcpu] += 1

        threads = [threading.Thread(target=run, args=(vcpu,)) for vcpu in range(2)]
        for thread in threads:
            thread.start()
        for n in range(10):
            route = c.add(Journal, BASE + 0x1000, name=f"guest{n}")
            c.remove(route, BASE + 0x1000, f"guest{n}", *clients)
        stop.set()
        for thread in threads:
            thread.join()
        kept = c.call("stays", "values")

        assert [kept.count(vcpu) for vcpu in range(2)] == counts
        assert c.fabric.shard_counters(0).malformed == 0


def test_a_device_that_cannot_be_made_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with cluster() as c:
        with pytest.raises(MachineError, match="unexpected keyword"):
            c.add(Filed, path=str(tmp_path / "log"), no_such_option=1)
        c.map.remove(next(iter(c.map))[0])

        c.add(Journal)

        assert access(c.client(), True) is Outcome.ANSWERED


def test_a_death_is_logged_with_its_cause(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with cluster() as c, caplog.at_level(logging.WARNING):
        c.add(Filed, path=str(tmp_path / "log"))
        client = c.client()
        os.kill(c.shards[0].pid, signal.SIGKILL)
        access(client, False)

    assert "shard shard0 died (-9)" in caplog.text


VMM = """
    import os, sys
    from tests.supervisor.devices import Journal
    from tests.supervisor.support import MMIO, BASE, Cluster

    made = Cluster(shards=2)
    made.add(Journal)
    made.add(Journal, BASE + 0x1000, shards=(1,), name="other")
    made.supervisor.call(made.supervisor.keep_spare)
    client = made.client()
    client.write(MMIO, BASE, 4, 1)
    print(*(shard.pid for shard in made.shards), made.supervisor._spares.pid, flush=True)
    while True:
        client.write(MMIO, BASE, 4, 1)
"""


def test_nothing_is_left_of_a_killed_vmm_after_a_second() -> None:
    before = set(os.listdir("/dev/shm"))
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(VMM)], stdout=subprocess.PIPE, text=True
    ) as vmm:
        assert vmm.stdout is not None
        pidfds = [os.pidfd_open(int(pid)) for pid in vmm.stdout.readline().split()]
        try:
            vmm.kill()
            killed = time.monotonic()
            ended = [_ends(fd, killed + 1.0) for fd in pidfds]
        finally:
            for fd in pidfds:
                os.close(fd)

    assert (len(ended), all(ended)) == (3, True)
    assert not [name for name in set(os.listdir("/dev/shm")) - before if name.startswith("shardio")]


def _ends(pidfd: int, deadline: float) -> bool:
    return bool(select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))[0])


def test_stopping_twice_and_closing_twice_is_harmless() -> None:
    made = Cluster()
    with made.stack:
        made.supervisor.call(made.supervisor.stop_shards)
    made.supervisor.close()

    assert not made.shards[0].alive


def test_a_message_that_a_shard_cannot_read_ends_it_and_whoever_waits_learns_of_it() -> None:
    """It used to be left unanswered: the caller waited for half a minute."""
    with cluster() as c:
        c.add(Counter)
        shard = c.shards[0]
        request = c.supervisor.call(
            lambda: shard.request(lambda serial: protocol.Call(serial, "Counter", 5, b""))  # type: ignore[arg-type]
        )
        with pytest.raises(ShardError, match="died"):
            request.result(PATIENCE_S)
