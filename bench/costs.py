"""What the model is fed with: costs that were measured where no queue forms, with one vCPU, whatever the
number of shards. Times are in nanoseconds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import msgspec

from shardio.bench.errors import BenchError
from shardio.bench.results import Point, Run

CACHED_DEVICES = 100
WAKE_NS = 25_000.0
SCAN_NS = 46.0 / 64
"""A vCPU's idle line in a scan: 64 of them take 46 ns."""
SWITCH_NS = 1500.0
"""Half of a round trip between two processes on one CPU, where the run has not measured it."""


class Spread(msgspec.Struct, frozen=True):
    """How service times lie about their median, by the percentiles of round trips without a queue, as
    multiples of it. Between them the tail is a power of the probability.
    """

    p99: float = 1.0
    p999: float = 1.0

    def draw(self, chance: float) -> float:
        """A multiple of the median; `chance` is uniform in [0, 1)."""
        tail = -math.log10(max(1.0 - chance, 1e-3))
        points = ((math.log10(2), 1.0), (2.0, self.p99), (3.0, self.p999))
        if tail <= points[0][0]:
            return 1.0
        low, high = (points[0], points[1]) if tail < 2.0 else (points[1], points[2])
        part = (tail - low[0]) / (high[0] - low[0])
        return math.exp(math.log(low[1]) * (1 - part) + math.log(high[1]) * part)

    @property
    def mean(self) -> float:
        """Of many draws, as a multiple of the median."""
        return statistics.fmean(self.draw((i + 0.5) / 2000) for i in range(2000))


class Costs(msgspec.Struct, frozen=True):
    """What the model is fed with: nanoseconds. `wire` is one way; `dispatch` what a shard adds to a
    handler.
    """

    wire: float
    dispatch: float
    switch: float = SWITCH_NS
    wake: float = WAKE_NS
    scan: float = SCAN_NS

    @classmethod
    def measured(cls, run: Run) -> Costs:
        """From the points of one vCPU without a handler. A round trip is the two wires, which together are
        the floor, and the dispatch. Raises `BenchError` without such a point.
        """
        alone = alone_points(run.scaling, 0)
        if not alone:
            raise BenchError(
                "no measured point of 1 vCPU x 1 shard with handler 0", "measure scaling with those"
            )
        trip = statistics.median(1e9 / point.rate for point in alone)
        floors = [row.floor.p50 for row in run.rows if row.floor is not None]
        floor = min(statistics.median(floors), trip * 0.9) if floors else trip / 2
        dispatch = trip - floor
        shared = [row.operation for row in run.rows if row.name == "one-cpu"]
        switch = max(0.0, (shared[0] - dispatch) / 2) if shared else SWITCH_NS
        return cls(wire=floor / 2, dispatch=dispatch, switch=switch)


class Service(msgspec.Struct, frozen=True):
    """A handler as it was measured in shards: nanoseconds on average, dispatch apart, and their spread."""

    handler_ns: float
    spread: Spread = Spread()

    @classmethod
    def measured(cls, points: Sequence[Point], handler_ns: int) -> Service:
        """From the points of one vCPU with this handler, less those without one: medians. Calibrated steps
        take another time in another process; this is what they took there.
        """
        with_it, without = alone_points(points, handler_ns), alone_points(points, 0)
        if not with_it or not without:
            return cls(float(handler_ns))
        took, idle = (statistics.median(1e9 / p.rate for p in some) for some in (with_it, without))
        spread = Spread(
            statistics.median(p.latency.p99 / p.latency.p50 for p in with_it),
            statistics.median(p.latency.p999 / p.latency.p50 for p in with_it),
        )
        return cls(max(0.0, took - idle), spread)


def alone_points(points: Sequence[Point], handler_ns: int) -> list[Point]:
    """Those where one vCPU finds its shard idle, and devices fit into caches."""
    return [
        p
        for p in points
        if p.vcpus == 1 and p.shards > 0 and p.handler_ns == handler_ns and p.devices <= CACHED_DEVICES
    ]
