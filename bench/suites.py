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

from shardio.bench import exits, host, overheads, start_up
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
                    self._take(step, tell, interrupt, found.setdefault(step.into, []), skipped)
        except KeyboardInterrupt:
            interrupted = True
        run = Run(host=self.host, seconds=time.monotonic() - began, interrupted=interrupted, skipped=skipped)
        return msgspec.structs.replace(run, **found)

    def _take(
        self, step: Step, tell: Tell, interrupt: Interrupt, found: list[object], skipped: dict[str, str]
    ) -> None:
        def progress(seconds: float) -> None:
            tell(step.title, seconds)
            interrupt.check()

        progress(0.0)
        try:
            for value in step.measure(self.effort._replace(progress=progress)):
                found.append(value)
        except (ShardioError, OSError) as error:
            skipped[step.title] = str(error)
        progress(START_S)


def preamble(where: Host) -> list[str]:
    """What a reader must know before any figure."""
    place = "each vCPU and shard pinned, over all of them" if where.spread else "not pinned"
    if where.pinned:
        place = f"pinned to CPUs {where.pinned[0]} and {where.pinned[1]}"
    cpus = f"{where.usable_cpus} of {where.cpus} CPUs usable, {place}"
    return [f"{where.machine}, {cpus}; Linux {where.kernel}, {where.python}"] + [
        f"caution: {text}" for text in where.caution
    ]


def quick(effort: Effort) -> Plan:
    """The data path's table."""
    return _paired(effort, _row_steps)


def kvm(effort: Effort) -> Plan:
    """Real exits of every kind, by device form."""
    return _paired(effort, _kvm_steps)


def peers(effort: Effort, only: Sequence[str] = ()) -> Plan:
    """The same device in other hands. Raises `BenchError` for a name in `only` that no peer has."""
    return _paired(effort, partial(_peer_steps, only=only))


def scaling(effort: Effort, grid: Grid) -> Plan:
    """vCPUs x shards x devices x handler cost."""
    return Plan(host.describe(None, spread=True), effort, _scaling_steps(grid, effort))


def everything(effort: Effort, grid: Grid) -> Plan:
    """All suites, for the report."""

    def steps(cpus: tuple[int, int]) -> list[Step]:
        return [*figures(cpus), *_scaling_steps(grid, effort)]

    return _paired(effort, steps)


def figures(cpus: tuple[int, int]) -> list[Step]:
    """All steps that give figures."""
    return [*_row_steps(cpus), *_peer_steps(cpus), *_kvm_steps(cpus)]


def _paired(effort: Effort, steps: Callable[[tuple[int, int]], list[Step]]) -> Plan:
    cpus = host.two_cpus()
    return Plan(host.describe(cpus), effort, steps(cpus))


def _row_steps(cpus: tuple[int, int]) -> list[Step]:
    return [
        *(Step(row.name, "rows", partial(row.measure, cpus)) for row in ROWS),
        Step("trace", "rows", partial(overheads.trace, cpus), 2),
        Step("metrics", "rows", partial(overheads.metrics, cpus)),
        *(Step(case.title, "rows", case.measure) for case in exits.QUICK),
    ]


def _kvm_steps(_cpus: tuple[int, int]) -> list[Step]:
    return [
        *(Step(case.title, "kvm", case.measure) for case in exits.CASES),
        *(Step(f"QEMU, {guest}", "kvm", partial(qemu.measure, guest)) for guest in qemu.GUESTS),
    ]


def _peer_steps(cpus: tuple[int, int], only: Sequence[str] = ()) -> list[Step]:
    check_named()
    known = {peer.name: peer for peer in PEERS}
    for name in only:
        if name not in known:
            raise BenchError(f"no peer {name!r}", f"use {', '.join(known)}")
    chosen = [known[name] for name in only] or known.values()
    return [Step(peer.title, "peers", partial(measure, peer, cpus)) for peer in chosen]


def _scaling_steps(grid: Grid, effort: Effort) -> list[Step]:
    starts = len(grid.devices) * len(grid.handlers) * len(grid.shards) * START_S / effort.budget
    return [
        Step("scaling", "scaling", partial(measure_grid, grid), grid.points * SLICE + starts),
        Step("start-up and memory", "costs", start_up.measure),
    ]
