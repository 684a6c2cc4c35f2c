"""When a shard counts as hanging: what a vCPU waits for, against the clock that the test moves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from shardio._core import lib
from shardio.supervisor.context import Context
from shardio.supervisor.hang import START_S, HangWatch
from tests.e2e.support import until
from tests.fabric.support import BASE, MMIO, Log, bench


class Waiting:
    """A vCPU in an access that nobody answers, and the watch with a deadline of 1 s; `kills` of its shard."""

    def __init__(self, context: Context, client: Any, *, restored: bool) -> None:
        self.kills = 0
        self.control = context.fabric.view.shard[0]
        self.watch = HangWatch(context, 1.0)
        shard = SimpleNamespace(name="shard0", alive=True, restored=restored, spawned_at=0.0, kill=self.kill)
        context.shards.append(shard)  # type: ignore[arg-type]
        context.vcpus.append(SimpleNamespace(index=0, client=client, ended=False))  # type: ignore[arg-type]

    def kill(self) -> None:
        self.kills += 1

    def killed_after(self, *moments: float) -> list[int]:
        """How often it was killed in all, after a look at each of these moments (seconds)."""
        return [(self.watch.look(now), self.kills)[1] for now in moments]  # type: ignore[func-returns-value]


@contextmanager
def waiting(*, restored: bool = True) -> Iterator[Waiting]:
    with bench() as b:
        _, _, client = b.connect(Log())
        thread = threading.Thread(target=client.read, args=(MMIO, BASE, 4))
        thread.start()
        until(lambda: lib.sio_client_pending(client.view) != 0, "it waits")
        context = Context(b.fabric, b.map, lambda *_: None)
        try:
            yield Waiting(context, client.view, restored=restored)
        finally:
            context.selector.close()
            client.abort()
            thread.join()


def test_a_shard_that_takes_nothing_is_killed_after_the_deadline() -> None:
    with waiting() as w:
        assert w.killed_after(10.0, 11.0, 11.01, 11.02) == [0, 0, 1, 1]


def test_a_shard_that_takes_other_requests_has_a_deadline_more_for_each_vcpu() -> None:
    with waiting() as w:
        killed = []
        for now in (10.0, 10.9, 11.8, 12.0, 12.01):
            w.control.progress += 1
            killed += w.killed_after(now)

        assert killed == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(("restored", "kills"), [(True, 1), (False, 0)])
def test_a_shard_that_makes_its_devices_has_longer(restored: bool, kills: int) -> None:
    with waiting(restored=restored) as w:
        assert w.killed_after(0.0, START_S - 1) == [0, kills]


def test_a_shard_that_makes_its_devices_has_not_for_ever() -> None:
    with waiting(restored=False) as w:
        assert w.killed_after(0.0, START_S - 1, START_S, START_S + 1) == [0, 0, 0, 1]
