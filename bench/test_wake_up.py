"""Waiting: an access after the shard has been idle for a while, on two CPUs and with both ends on one."""

from __future__ import annotations

import time
from typing import Any

import pytest

from shardio.bench.messages import Handlers
from shardio.bench.pair import Pair, Setting
from shardio.fabric import Outcome

BASE, MMIO = 0xD000_0000, 1
GAPS_S = (0.0, 10e-6, 30e-6, 100e-6, 1e-3)


@pytest.mark.parametrize("one_cpu", [False, True], ids=["two-cpus", "one-cpu"])
@pytest.mark.parametrize("gap", GAPS_S)
def test_access_after_a_gap(benchmark: Any, cpus: tuple[int, int], gap: float, one_cpu: bool) -> None:
    setting = Setting([Handlers(0, MMIO, BASE, 0x1000, "native")])
    with Pair([setting], (cpus[0], cpus[0] if one_cpu else cpus[1])):
        client = setting.client()

        outcome, _ = benchmark.pedantic(
            lambda: client.read(MMIO, BASE, 4), setup=lambda: time.sleep(gap), rounds=300, warmup_rounds=20
        )

        lost = setting.fabric.shard_counters(0).lost_wakeups + setting.fabric.vcpu_counters(0).lost_wakeups
    assert outcome is Outcome.ANSWERED
    assert lost == 0
