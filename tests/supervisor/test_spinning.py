"""vCPUs that execute without ever leaving the guest are looked at; those that sleep or leave it are not."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

from shardio.supervisor.spinning import BUSY_S, LOOK_EVERY_S, SpinWatch
from shardio.vcpu import VcpuState


def vcpu(**values: Any) -> Any:
    """One that this very process seems to run."""
    looks: list[int] = []
    made = {"index": 0, "pid": os.getpid(), "state": VcpuState.RUNNING, "exit_total": 7, "looks": looks}
    return SimpleNamespace(**(made | values), inspect=lambda: looks.append(1))


def compute(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def watch(watched: Any, seconds: float, change: Any = lambda: None) -> None:
    """Two looks, `seconds` of CPU time apart."""
    spinning = SpinWatch([watched])
    spinning.look(LOOK_EVERY_S)
    compute(seconds)
    change()
    spinning.look(2 * LOOK_EVERY_S)


def test_one_that_computes_without_an_exit_is_looked_at() -> None:
    watched = vcpu()
    watch(watched, BUSY_S)
    assert watched.looks == [1]


def test_one_that_sleeps_is_let_sleep() -> None:
    watched = vcpu()
    watch(watched, 0)
    assert watched.looks == []


def test_one_that_has_left_the_guest_is_let_run() -> None:
    watched = vcpu()
    watch(watched, BUSY_S, lambda: setattr(watched, "exit_total", 8))
    assert watched.looks == []


def test_one_that_is_replaced_or_stands_still_or_is_not_emulated_is_let_be() -> None:
    replaced, paused, native = vcpu(), vcpu(state=VcpuState.PAUSED), vcpu(exit_total=None)
    watch(replaced, BUSY_S, lambda: setattr(replaced, "pid", os.getppid()))
    watch(paused, BUSY_S)
    watch(native, BUSY_S)
    assert (replaced.looks, paused.looks, native.looks) == ([], [], [])


def test_little_cpu_time_adds_up() -> None:
    watched = vcpu()
    spinning = SpinWatch([watched])
    for number in range(1, 4):
        spinning.look(number * LOOK_EVERY_S)
        compute(BUSY_S / 2)
    spinning.look(4 * LOOK_EVERY_S)
    assert watched.looks == [1]
