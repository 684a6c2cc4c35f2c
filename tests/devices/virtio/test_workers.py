"""`shardio.devices.virtio.workers`: each result once, to whoever asks; threads as many as run at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from shardio.devices.virtio.workers import Workers


class Rig:
    """Workers that double numbers, once `go` is set; `fetched` counts the calls of `fetch`."""

    def __init__(self, most: int = 2) -> None:
        self.go, self.fetched = threading.Event(), threading.Semaphore(0)
        self.workers: Workers[int, int] = Workers(self._run, self.fetched.release, most=most, name="double")

    def _run(self, job: int) -> int:
        self.go.wait()
        return 2 * job

    def threads(self) -> int:
        return sum(thread.name.startswith("double_") for thread in threading.enumerate())

    def submit(self, *jobs: int) -> None:
        for job in jobs:
            self.workers.submit(job)


@pytest.fixture
def rig() -> Iterator[Rig]:
    """See `Rig`."""
    made = Rig()
    with closing(made.workers):
        yield made
        made.go.set()


def test_results_come_once(rig: Rig) -> None:
    rig.go.set()
    rig.submit(1, 2, 3)
    rig.workers.wait()

    assert sorted(rig.workers.results()) == [2, 4, 6]
    assert rig.workers.results() == []


def test_there_is_a_call_for_what_ended_until_it_is_fetched(rig: Rig) -> None:
    rig.go.set()
    rig.submit(1)
    assert rig.fetched.acquire(timeout=20)
    rig.workers.wait()
    rig.submit(2)
    rig.workers.wait()
    assert not rig.fetched.acquire(blocking=False)

    assert rig.workers.results() == [2, 4]
    rig.submit(3)
    assert rig.fetched.acquire(timeout=20)


def test_threads_are_as_many_as_run_at_once_and_no_more_than_allowed(rig: Rig) -> None:
    assert rig.threads() == 0
    rig.submit(1)
    assert rig.threads() == 1
    rig.submit(2, 3, 4)
    assert rig.threads() == 2


def test_what_is_not_kept_is_forgotten(rig: Rig) -> None:
    rig.go.set()
    rig.submit(1, 2, 3)
    rig.workers.keep(lambda result: result > 2)

    assert sorted(rig.workers.results()) == [4, 6]


def test_close_waits_and_ends_the_threads(rig: Rig) -> None:
    rig.go.set()
    rig.submit(1, 2)
    rig.workers.close()

    assert rig.threads() == 0
    assert sorted(rig.workers.results()) == [2, 4]
