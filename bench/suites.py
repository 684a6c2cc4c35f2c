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

from shardio.bench import exits, host, start_up, writes
from shardio.bench import peers as others
from shardio.bench import scaling as scales
from shardio.bench.effort import START_S, Effort
from shardio.bench.errors import BenchError
from shardio.bench.interrupt import Interrupt
from shardio.bench.peers import qemu
from shardio.bench.peers.interpreter import check_named
from shardio.bench.peers.measure import measure
from shardio.bench.results import Figure, Host, Run
from shardio.bench.rows import ROWS
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
    cpus = host.two_cpus()
    return Plan(
        host.describe(cpus), effort, [*_rows(cpus), Step("KVM exit", "rows", partial(exits.row, cpus))]
    )


def _rows(cpus: tuple[int, int]) -> list[Step]:
    return [Step(row.name, "rows", partial(row.measure, cpus), row.figures) for row in ROWS]


def kvm(effort: Effort) -> Plan:
    """Real exits of every kind, by device form."""
    cpus = host.two_cpus()
    return Plan(host.describe(cpus), effort, _kvm_steps())


def _kvm_steps() -> list[Step]:
    cases = [(guest, device, vcpus) for guest in exits.GUESTS for device, vcpus in (("register", 1),)]
    cases += [("pio-in", "native", 1), ("pio-in", "view", 1), ("pio-in", "register", 2)]

    def step(guest: str, device: str, vcpus: int) -> Step:
        def measure(effort: Effort) -> Iterator[Figure]:
            yield exits.measure(guest, device, effort, vcpus=vcpus)

        many = f", {vcpus} vCPUs" if vcpus > 1 else ""
        return Step(f"KVM {exits.GUESTS[guest].title}{many}, {device}", "kvm", measure)

    unwaited = Step("KVM writes that are not waited for", "kvm", writes.measure, len(writes.KINDS))
    return [*(step(*case) for case in cases), unwaited, Step("QEMU", "kvm", qemu.measure)]


def peers(effort: Effort, only: Sequence[str] = (), python: str = "") -> Plan:
    """The same device in other hands. `python`: an interpreter for those that need another one. Raises
    `BenchError` for a name in `only` that no peer has.
    """
    cpus = host.two_cpus()
    return Plan(host.describe(cpus), effort, _peer_steps(cpus, only, python))


def _peer_steps(cpus: tuple[int, int], only: Sequence[str] = (), python: str = "") -> list[Step]:
    check_named(python)
    known = {peer.name: peer for peer in others.peers(python)}
    for name in only:
        if name not in known:
            raise BenchError(f"no peer {name!r}", f"use {', '.join(known)}")
    chosen = [known[name] for name in only] or known.values()
    return [Step(peer.title, "peers", partial(measure, peer, cpus)) for peer in chosen]


def scaling(
    effort: Effort,
    devices: Sequence[int],
    vcpus: Sequence[int],
    shards: Sequence[int],
    handlers: Sequence[int],
) -> Plan:
    """vCPUs x shards x devices x handler cost."""
    return Plan(
        host.describe(None, spread=True),
        effort,
        [_scaling_step(scales.Grid(devices, vcpus, shards, handlers), effort), _start_up_step()],
    )


def _scaling_step(grid: scales.Grid, effort: Effort) -> Step:
    blocks = grid.points * scales.SLICE * effort.budget
    starts = len(grid.devices) * len(grid.handlers) * len(grid.shards) * START_S
    return Step("scaling", "scaling", partial(scales.measure, grid), (blocks + starts) / effort.budget)


def _start_up_step() -> Step:
    return Step("start-up and memory", "costs", start_up.measure)


def everything(
    effort: Effort,
    devices: Sequence[int],
    vcpus: Sequence[int],
    shards: Sequence[int],
    handlers: Sequence[int],
    python: str = "",
) -> Plan:
    """All suites, for the report. `python`: as for `peers`."""
    cpus = host.two_cpus()
    grid = scales.Grid(devices, vcpus, shards, handlers)
    return Plan(
        host.describe(cpus),
        effort,
        [
            *_rows(cpus),
            Step("KVM exit", "rows", partial(exits.row, cpus)),
            *_peer_steps(cpus, python=python),
            *_kvm_steps(),
            _scaling_step(grid, effort),
            _start_up_step(),
        ],
    )
