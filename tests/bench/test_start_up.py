"""Start-up: what it takes grows with what devices need, not with hand-overs between threads."""

from __future__ import annotations

from typing import Any

import pytest

from shardio.bench import start_up
from shardio.bench.effort import Effort
from shardio.supervisor import Supervisor


@pytest.mark.kvm
def test_the_supervisor_is_not_asked_for_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    call = Supervisor.call

    def counted(self: Supervisor, function: Any) -> Any:
        nonlocal asked
        asked += 1
        return call(self, function)

    monkeypatch.setattr(Supervisor, "call", counted)

    start_up._started(shards=1, devices=1000)

    assert asked < 100


@pytest.mark.kvm
def test_all_costs_are_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_up, "MANY", 2000)  # enough for their memory to stand out

    costs = {cost.title: cost for cost in start_up.measure(Effort(rounds=1, seconds=0.001))}

    assert costs["a machine of 2,000 devices starts"].value > 0
    assert 0 < costs["memory of a device"].value < 100
