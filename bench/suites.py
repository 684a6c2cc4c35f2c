"""What each `shardio bench` suite measures, in which order, and how long it takes.

A plan is a list of steps; each puts what it measured into the run that is being collected. A step that
cannot be done here says why and is skipped. Ctrl-C ends a plan: the steps before it are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from shardio.bench import exits, host, overheads, start_up, wakes
from shardio.bench.effort import START_S, Effort
from shardio.bench.errors import BenchError
from shardio.bench.interrupt import Interrupt
from shardio.bench.peers import PEERS, qemu
from shardio.bench.peers.interpreter import check_named
from shardio.bench.peers.measure import measure
from shardio.bench.results import Host, Run
from shardio.bench.rows import ROWS
from shardio.bench.scaling import SLICE, Grid
from shardio.bench.scaling import measure as measure_grid
from shardio.errors import ShardioError

Tell = Callable[[str, float], None]
"""Called with what is being measured and the seconds that have passed since the last call."""


class Step(NamedTuple):
    """`into`: the list of the run that `measure(effort)` adds to; `figures`: how many budgets of time it
    takes.
    """

    title: str
    into: str
    measure: Callable[[Effort], Iterator[object]]
    figures: float = 1


class Plan:
    """Steps to take on this host."""

    def __init__(self, where: Host, effort: Effort, steps: Sequence[Step]) -> None:
        self.host, self.effort, self.steps = where, effort, list(steps)

    @property
    def seconds(self) -> float:
        """How long it takes, about."""
        return sum(step.figures * self.effort.budget + START_S for step in self.steps)

    def run(self, tell: Tell) -> Run:
        """Take the steps, one after the other."""
        found: dict[str, list[object]] = {}
        skipped: dict[str, str] = {}
        began, interrupted = time.monotonic(), False
        try:
            with Interrupt() as interrupt:
                for step in self.steps:

                    def progress(seconds: float, title: str = step.title) -> None:
                        tell(title, seconds)
                        interrupt.check()

                    progress(0.0)
                    try:
                        for value in step.measure(self.effort._replace(progress=progress)):
                            found.setdefault(step.into, []).append(value)
                    except (ShardioError, OSError) as error:
                        skipped[step.title] = str(error)
                    progress(START_S)
        except KeyboardInterrupt:
            interrupted = True
        run = Run(host=self.host, seconds=time.monotonic() - began, interrupted=interrupted, skipped=skipped)
        return msgspec.structs.replace(run, **found)


def plan(suite: str, effort: Effort, grid: Grid | None = None, only: Sequence[str] = ()) -> Plan:
    """Of "quick", "kvm", "peers", "scaling" or "report", which is all of them. `only`: the peers to measure.

    Raises `BenchError` where there are too few CPUs, and for a peer that nobody knows.
    """
    cpus = host.two_cpus() if suite != "scaling" else None
    steps = figures(cpus, suite, only) if cpus else []
    if grid:
        starts = len(grid.devices) * len(grid.handlers) * len(grid.shards) * START_S / effort.budget
        steps.append(Step("scaling", "scaling", partial(measure_grid, grid), grid.points * SLICE + starts))
        steps.append(Step("start-up and memory", "costs", start_up.measure))
    return Plan(host.describe(cpus, spread=not cpus), effort, steps)


def figures(cpus: tuple[int, int], suite: str = "report", only: Sequence[str] = ()) -> list[Step]:
    """The steps of a suite that give figures."""
    if suite in ("peers", "report"):
        check_named()
    known = {peer.name: peer for peer in PEERS}
    if unknown := [name for name in only if name not in known]:
        raise BenchError(f"no peer {unknown[0]!r}", f"use {', '.join(known)}")
    chosen = [known[name] for name in only] or known.values()
    steps = {
        "quick": [
            *(Step(row.name, "rows", partial(row.measure, cpus)) for row in ROWS),
            Step("trace", "rows", partial(overheads.trace, cpus), 2),
            Step("metrics", "rows", partial(overheads.metrics, cpus)),
            *(Step(case.title, "rows", case.measure) for case in (*exits.QUICK, *wakes.CASES)),
        ],
        "peers": [Step(peer.title, "peers", partial(measure, peer, cpus)) for peer in chosen],
        "kvm": [
            *(Step(case.title, "kvm", case.measure) for case in exits.CASES),
            *(Step(qemu.title(guest), "kvm", partial(qemu.measure, guest)) for guest in qemu.GUESTS),
        ],
    }
    steps["kvm"].sort(key=lambda step: step.title)  # by the access
    return steps.get(suite) or [step for every in steps.values() for step in every]
