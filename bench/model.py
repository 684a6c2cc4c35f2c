"""A model of machines larger than ours: what `simulation` predicts when it is fed with measured `costs`, and
how far off it is where there are measurements.

Nothing is fitted to the points that it is held against: it is fed with one vCPU, and held against more.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from shardio.bench.costs import CACHED_DEVICES, Costs, Service
from shardio.bench.results import Point, Run
from shardio.bench.simulation import ACCESSES, Prediction, predict


class Check(msgspec.Struct, frozen=True):
    """A measured point beside its prediction; errors are the part by which the model is too high."""

    point: Point
    prediction: Prediction
    machine: str

    @property
    def error(self) -> float:
        """Of the rate."""
        return self.prediction.rate / self.point.rate - 1

    @property
    def p99_error(self) -> float:
        """Of the 99th percentile of latencies."""
        return self.prediction.latency.p99 / self.point.latency.p99 - 1


def grid(costs: Costs, vcpus: Sequence[int], shards: Sequence[int], service: Service) -> list[Prediction]:
    """Predictions for every combination, a CPU for everybody; the more vCPUs, the fewer accesses of each are
    simulated.
    """
    return [
        predict(costs, n, m, service, accesses=max(30, min(ACCESSES, 6_000 // n)))
        for m in shards
        for n in vcpus
    ]


def validate(run: Run) -> list[Check]:
    """The measured points of a run with two vCPUs or more beside the model fed with those of one, on as many
    CPUs as the run had. Left out: points of so many devices that caches decide, and those that ask for more
    shards than there are devices, which are others over again.
    """
    costs = Costs.measured(run)
    services = {ns: Service.measured(run.scaling, ns) for ns in {p.handler_ns for p in run.scaling}}
    return [
        Check(
            point,
            predict(
                costs, point.vcpus, point.shards, services[point.handler_ns], cpus=run.host.usable_cpus
            ),
            run.host.machine,
        )
        for point in run.scaling
        if point.vcpus > 1 and 0 < point.shards <= point.devices <= CACHED_DEVICES
    ]


def summary(checks: Sequence[Check]) -> list[str]:
    """How far off the model is, apart for points with a CPU for everybody and those that share CPUs."""
    lines = []
    for title, shared in (("with a CPU for each vCPU and shard", False), ("that share CPUs", True)):
        some = [check for check in checks if check.point.oversubscribed is shared]
        if not some:
            lines.append(f"points {title}: none was measured")
            continue
        rates, tails = [check.error for check in some], [check.p99_error for check in some]
        lines.append(
            f"{len(some)} points {title}: rate off by {typical_error(rates):.0%} in the median, "
            f"{max(map(abs, rates)):.0%} at worst; p99 by {typical_error(tails):.0%} and "
            f"{max(map(abs, tails)):.0%}"
        )
    return lines


def typical_error(errors: Sequence[float]) -> float:
    """The median size."""
    return statistics.median(map(abs, errors))
