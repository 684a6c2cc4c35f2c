"""What a machine can reach at most, in closed form, from costs that were measured with one vCPU.

Each vCPU makes one access after the other and waits for each; a shard serves one at a time. So a machine
makes no more accesses than

  its vCPUs ask for     vcpus / (exit + round trip)
  its shards serve      shards / service               a round trip less the floor: what a shard is busy for
  its CPUs work for     CPUs / (exit + service + switches)    where there are fewer than vCPUs and shards

and the least of the three is the bound. It is valid where each process has a CPU, or where handlers compute
for longer than who waits polls: with fewer CPUs and short handlers, polls take the CPU from those that have
work, of which it knows nothing. It knows nothing of memory bandwidth, caches or a second socket either.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import NamedTuple

from shardio.bench.errors import BenchError
from shardio.bench.results import Point, Run

CACHED_DEVICES = 100
"""With more devices caches decide, of which no cost here tells."""
SWITCH_NS = 1500.0
"""Handing a CPU to another process, where the run has not measured it."""
POLLS_NS = 3000.0
"""How long who waits polls before it yields: native/wait.h."""


class Bound(NamedTuple):
    """Accesses a second, what limits them ("vCPUs", "shards" or "CPUs"), and whether that can be relied on.
    """

    rate: float
    limit: str
    valid: bool


class Costs(NamedTuple):
    """Nanoseconds. `trip`: a round trip to an idle shard; `service`: what the shard is busy for; `exit`: what
    a guest takes between two accesses.
    """

    trip: float
    service: float
    switch: float = SWITCH_NS
    exit: float = 0.0

    def bound(self, vcpus: int, shards: int, cpus: int | None = None) -> Bound:
        """Of a machine with so many CPUs; None: one for everybody."""
        rates = {"vCPUs": vcpus / (self.exit + self.trip), "shards": shards / self.service}
        shared = cpus is not None and cpus < vcpus + shards
        if cpus is not None and shared:
            rates["CPUs"] = cpus / (self.exit + self.service + 2 * self.switch)
        limit = min(rates, key=lambda name: rates[name])
        return Bound(rates[limit] * 1e9, limit, not shared or self.exit + self.service >= POLLS_NS)

    @classmethod
    def measured(cls, run: Run, handler_ns: int) -> Costs:
        """From a run's points of one vCPU with this handler, whatever the number of shards, and from its
        floor. Raises `BenchError` without such a point.
        """
        points = [p for p in run.scaling if (p.vcpus, p.handler_ns) == (1, handler_ns) and p.shards]
        trips = [1e9 / p.rate for p in points if p.devices <= CACHED_DEVICES]
        if not trips:
            what = f"no measured point of 1 vCPU x 1 shard with handler {handler_ns}"
            raise BenchError(what, "measure scaling with those")
        trip = statistics.median(trips)
        floors = [row.floor.p50 for row in run.rows if row.floor is not None]
        floor = min(statistics.median(floors), trip * 0.9) if floors else min(100.0, trip / 2)
        alone = [row.operation for row in run.rows if row.name == "one-cpu"]
        switch = max(0.0, alone[0] - trip) / 2 if alone and not handler_ns else SWITCH_NS
        return cls(trip, trip - floor, switch)


class Check(NamedTuple):
    """A measured point beside its bound; `error`: the part by which the bound is too high."""

    point: Point
    bound: Bound
    machine: str

    @property
    def error(self) -> float:
        """Of the rate."""
        return self.bound.rate / self.point.rate - 1


def check(run: Run) -> list[Check]:
    """The measured points of a run with two vCPUs or more, on as many CPUs as the run had. Left out: those of
    so many devices that caches decide, and those that ask for more shards than there are devices.
    """
    costs = {ns: Costs.measured(run, ns) for ns in {p.handler_ns for p in run.scaling}}
    return [
        Check(p, costs[p.handler_ns].bound(p.vcpus, p.shards, run.host.usable_cpus), run.host.machine)
        for p in run.scaling
        if p.vcpus > 1 and 0 < p.shards <= p.devices <= CACHED_DEVICES
    ]


def summary(checks: Iterable[Check]) -> str:
    """How far off the bound is where it is valid, and of how many points it says nothing."""
    checks = list(checks)
    errors = [abs(each.error) for each in checks if each.bound.valid]
    outside = f"{len(checks) - len(errors)} points outside of its validity are marked"
    if not errors:
        return f"no point was measured where it is valid; {outside}"
    middle, worst = statistics.median(errors), max(errors)
    return f"{len(errors)} points: off by {middle:.0%} in the median, {worst:.0%} at worst; {outside}"
