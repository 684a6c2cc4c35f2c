"""When a shard counts as hanging: what a vCPU waits for, against the clock that the test moves."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from shardio._core import lib
from shardio.supervisor.context import Context
from shardio.supervisor.events import Event, ShardWaitedFor
from shardio.supervisor.hang import START_S, HangWatch
from shardio.supervisor.loop import TICK_S
from shardio.supervisor.process_state import ProcessState
from tests.e2e.support import until
from tests.fabric.support import BASE, MMIO, Log, bench

SLEEPS = ProcessState(stopped=False, runnable=False, cpu_s=0.0)
STOPPED = ProcessState(stopped=True, runnable=False, cpu_s=0.0)


class Waiting:
    """A vCPU in an access that nobody answers, and the watch with a deadline in seconds; `kills` of its
    shard. The test says how the shard's process `seems`.
    """

    def __init__(self, context: Context, client: Any, *, restored: bool, deadline: float) -> None:
        self.kills = 0
        self.seems: ProcessState | None = SLEEPS
        self.context, self.client = context, client
        self.control = context.fabric.view.shard[0]
        self.watch = HangWatch(context, deadline, lambda _: self.seems)
        self.shard: Any = SimpleNamespace(
            name="shard0", index=0, pid=7, alive=True, restored=restored, spawned_at=0.0, kill=self.kill,
            interpreter=None,
        )  # fmt: skip
        context.shards.append(self.shard)
        context.vcpus.append(SimpleNamespace(index=0, client=client, ended=False))  # type: ignore[arg-type]
        self.now = 0.0
        self.events: list[Event] = []

    def kill(self) -> None:
        self.kills += 1

    def killed_in(self, ticks: int, cpu_s: float = 0.0, tick_s: float = TICK_S) -> int:
        """How often it was killed within so many ticks, in each of which it has `cpu_s` of CPU time."""
        before = self.kills
        for _ in range(ticks):
            if cpu_s and self.seems is not None:
                self.seems = ProcessState(False, True, self.seems.cpu_s + cpu_s)
            self.now += tick_s
            self.watch.look(self.now)
        return self.kills - before


@contextmanager
def waiting(*, restored: bool = True, deadline: float = 1.0) -> Iterator[Waiting]:
    events: list[Event] = []
    with bench() as b:
        _, _, client = b.connect(Log())
        thread = threading.Thread(target=client.read, args=(MMIO, BASE, 4))
        thread.start()
        until(lambda: lib.sio_client_pending(client.view) != 0, "it waits")
        context = Context(b.fabric, b.map, events.append)
        try:
            made = Waiting(context, client.view, restored=restored, deadline=deadline)
            made.events = events
            yield made
        finally:
            context.selector.close()
            client.abort()
            thread.join()


SECOND = round(1 / TICK_S)


def test_a_shard_that_takes_nothing_is_killed_after_the_deadline() -> None:
    with waiting() as w:
        assert [w.killed_in(SECOND), w.killed_in(5)] == [0, 1]


@pytest.mark.parametrize("seems", [STOPPED, None], ids=["stopped", "unknown"])
def test_however_it_hangs_it_is_killed(seems: ProcessState | None) -> None:
    with waiting() as w:
        w.seems = seems
        assert [w.killed_in(SECOND), w.killed_in(5)] == [0, 1]


def test_one_that_loops_for_ever_is_killed_after_its_deadline_of_cpu_time() -> None:
    with waiting() as w:
        assert [w.killed_in(2 * SECOND, cpu_s=TICK_S / 2), w.killed_in(5, cpu_s=TICK_S / 2)] == [0, 1]


def test_one_that_gets_no_cpu_is_not_blamed() -> None:
    with waiting() as w:
        w.seems = ProcessState(stopped=False, runnable=True, cpu_s=1.0)
        assert w.killed_in(10 * SECOND) == 0


def test_time_in_which_this_process_was_suspended_is_not_the_shards() -> None:
    with waiting() as w:
        assert w.killed_in(5, tick_s=60.0) == 0


def test_an_access_that_the_shard_has_answered_blames_nobody() -> None:
    """Its worker may be stopped before it sees the answer: the journal still says that it waits."""
    with waiting() as w:
        pending = int(w.client.pending)
        w.killed_in(SECOND // 2)
        lib.sio_recover_refuse(w.context.fabric.view, 0, 0, 1 | (pending & 0xFFFF_FFFF_FFFF) << 2)
        w.client.pending = pending
        assert w.killed_in(3 * SECOND) == 0


def test_a_shard_that_takes_other_requests_has_a_deadline_more_for_each_vcpu() -> None:
    with waiting() as w:
        killed = []
        for _ in range(2):
            w.control.progress += 1
            killed.append(w.killed_in(SECOND - 1))
        w.control.progress += 1
        assert [*killed, w.killed_in(8)] == [0, 0, 1]


@pytest.mark.parametrize(("restored", "kills"), [(True, 1), (False, 0)])
def test_a_shard_that_makes_its_devices_has_longer(restored: bool, kills: int) -> None:
    with waiting(restored=restored) as w:
        assert min(1, w.killed_in(int(START_S - 1) * SECOND)) == kills


def test_a_shard_that_makes_its_devices_has_not_for_ever() -> None:
    with waiting(restored=False) as w:
        assert [w.killed_in(int(START_S) * SECOND - 1), min(1, w.killed_in(2 * SECOND))] == [0, 1]


def test_a_successor_that_is_stopped_is_killed_within_a_second() -> None:
    with waiting(restored=False, deadline=30.0) as w:
        w.seems = STOPPED
        assert [w.killed_in(SECOND), min(1, w.killed_in(5))] == [0, 1]


@pytest.mark.parametrize("seems", [SLEEPS, STOPPED], ids=["prompt", "traced"])
def test_without_a_deadline_it_is_told_of_once_and_left_alone(seems: ProcessState) -> None:
    with waiting(deadline=math.inf) as w:
        w.seems = seems
        killed = w.killed_in(100 * SECOND)

        assert (killed, w.events) == (0, [ShardWaitedFor("shard0", 7, 0, seems is STOPPED)])
