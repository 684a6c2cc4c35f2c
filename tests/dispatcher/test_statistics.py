"""What a device's statistics are made of: both sides' counters, and how long the vCPUs have run."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from shardio.dispatcher.life import Life
from shardio.dispatcher.statistics import device_statistics
from shardio.fabric import AccessStatistics


def counted(**given: int) -> Any:
    """A fabric of one vCPU and two shards, in which ranges 0 and 1 have what is given: `wait_` and
    `service_` fields.
    """

    def of(side: str) -> AccessStatistics:
        return AccessStatistics(**{k.partition("_")[2]: v for k, v in given.items() if k.startswith(side)})

    return SimpleNamespace(vcpus=1, waits=lambda *_: of("wait"), service=lambda *_: of("service"))


def test_waits_are_the_vcpus_and_service_is_the_shards() -> None:
    fabric = counted(
        wait_total_ns=7, service_reads=1, service_writes=2, service_posted=4, service_total_ns=5
    )

    found = device_statistics(fabric, "a", [(0, "x"), (1, "y")], (0, 1))

    assert (found.name, found.shard) == ("a", "x+y")
    assert (found.reads, found.writes, found.posted) == (4, 8 + 16, 16)
    assert (found.wait_ns, found.service_ns) == (14, 20)


@pytest.mark.parametrize(("waits", "service"), [(3, 1), (1, 3)])
def test_refused_is_what_either_side_has_seen(waits: int, service: int) -> None:
    found = device_statistics(counted(wait_refused=waits, service_refused=service), "a", [(0, "x")], [0])

    assert found.refused == 3


def test_the_clock_stands_still_while_the_vcpus_do(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100, 130, 200, 205, 300])
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(now))
    life = Life()
    life.clock_on()
    life.clock_off()
    life.clock_on()

    assert life.ran_ns == 30 + 5
