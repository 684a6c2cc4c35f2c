"""Workers and shards that are stopped and go on under load: nobody is blamed, and nothing is refused."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from shardio import Machine
from tests.e2e.devices import Sequencer
from tests.e2e.support import until

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(120)]

READS_FOR_EVER = b"\xba\x00\x10\xec\xeb\xfd"
"""mov dx, 0x1000; again: in al, dx; jmp again."""
DEADLINE_S = 0.3
STOPS = 8
SHORT_STOPS = 60
SEED = 0x5709


def worker(vm: Machine) -> int:
    return vm.statistics().vcpus[0].pid


def shard(vm: Machine) -> int:
    return vm.statistics().shards[0].pid


def served(vm: Machine) -> int:
    return vm.statistics().shards[0].served


def suspended(vm: Machine, pids: tuple[int, ...], seconds: float) -> None:
    """Stops processes for that long, and waits until the guest has gone on."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end, "the time has passed")
    before = served(vm)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    until(lambda: served(vm) > before + 10, "the guest goes on")


def nobody_died(stop: Callable[[Machine], None]) -> None:
    with Machine(memory="2M", vcpus=1, shards=1, hang_deadline=DEADLINE_S) as vm:
        vm.add(Sequencer, pio=0x1000, size=1)
        vm.load(READS_FOR_EVER, at=0x1000)
        vm.start()
        until(lambda: served(vm) > 100, "the guest runs")
        before = shard(vm)

        stop(vm)

        assert shard(vm) == before
        assert vm.statistics().devices[0].refused == 0


def test_a_worker_that_is_stopped_blames_nobody() -> None:
    """It may be stopped after the reply, when its journal still says that it waits."""

    def stop(vm: Machine) -> None:
        for _ in range(STOPS):
            suspended(vm, (worker(vm),), 2 * DEADLINE_S)

    nobody_died(stop)


def test_short_stops_of_workers_and_shards_blame_nobody() -> None:
    chance = random.Random(SEED)

    def stop(vm: Machine) -> None:
        for _ in range(SHORT_STOPS):
            pids = chance.choice([(worker(vm),), (shard(vm),), (worker(vm), shard(vm))])
            suspended(vm, pids, chance.uniform(0.0, DEADLINE_S / 3))

    nobody_died(stop)
