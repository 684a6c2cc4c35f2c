"""Waiting: an access after the shard has been idle for a while; both ends on one CPU; a program that computes
on the near CPU, the far one, or both. Asked from Python, in floors of the two CPUs without the program.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from shardio.bench.conftest import Keep
from shardio.bench.effort import Effort
from shardio.bench.pair import Handlers, Pair, Setting
from shardio.bench.results import Figure, Rounds, Unit
from shardio.bench.rows import BASE, MMIO, PAGE
from shardio.fabric import Outcome

GAPS_S = (0.0, 10e-6, 30e-6, 100e-6, 1e-3)
CALLS = 32


@contextmanager
def stranger(cpu: int) -> Iterator[None]:
    """A program that computes on a CPU."""
    code = f"import os; os.sched_setaffinity(0, {{{cpu}}}); print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def measure(
    title: str, cpus: tuple[int, int], effort: Effort, *,
    gap: float = 0.0, one_cpu: bool = False, busy: tuple[int, ...] = (),
) -> Iterator[Figure]:  # fmt: skip
    """Blocks of accesses, each timed, and a block of the floor before them. No wake-up may be lost."""
    setting, rounds = Setting([Handlers(0, MMIO, BASE, PAGE, "native")]), Rounds()
    clock = time.perf_counter_ns
    with Pair([setting], cpus) as pair, ExitStack() as stack:
        client, floor = setting.client(), pair.floor(effort.n)
        if one_cpu:
            pair.pin(cpus[0], cpus[0])
        for cpu in busy:
            stack.enter_context(stranger(cpu))
        for _ in effort.pairs(rounds):
            times = list[float]()
            for _ in range(CALLS):
                if gap:
                    time.sleep(gap)
                began = clock()
                outcome, _ = client.read(MMIO, BASE, 4)
                times.append(clock() - began)
                assert outcome is Outcome.ANSWERED
            rounds.add(statistics.median(times), floor, latency=times)
        counters = setting.fabric.shard_counters(0), setting.fabric.vcpu_counters(0)
        assert sum(each.lost_wakeups for each in counters) == 0
    yield rounds.figure(title, title, Unit.FLOOR)


@pytest.mark.parametrize("one_cpu", [False, True], ids=["two-cpus", "one-cpu"])
@pytest.mark.parametrize("gap", GAPS_S)
def test_access_after_a_gap(
    keep: Keep, cpus: tuple[int, int], brief: Effort, gap: float, one_cpu: bool
) -> None:
    title = f"after {gap * 1e6:g} us, {'one CPU' if one_cpu else 'two CPUs'}"

    figures = keep(lambda: measure(title, cpus, brief, gap=gap, one_cpu=one_cpu))

    assert figures[0].value > 1


@pytest.mark.parametrize("where", ["near", "far", "both"])
def test_access_beside_a_program_that_computes(
    keep: Keep, cpus: tuple[int, int], brief: Effort, where: str
) -> None:
    busy = {"near": cpus[:1], "far": cpus[1:], "both": cpus}[where]

    figures = keep(lambda: measure(f"a program computes, {where}", cpus, brief, busy=busy))

    assert figures[0].value > 1
