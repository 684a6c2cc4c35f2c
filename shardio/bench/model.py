"""A model of machines larger than ours: a closed queueing network, simulated event by event.

N vCPUs each run guest code for a while, send one access to a shard, and wait for the answer; a shard serves one access at
a time, in the order of arrival (its scan of the lines is fair). What an access costs:

  out           until the shard sees the request: half of a native round trip, less its service
  service       what the shard does for one access: bookkeeping, and the handler
  scan          for each vCPU's line that it looks at, while it serves one
  back          until the vCPU sees the answer: the same half
  wake          what a sleeping peer adds, when it has waited longer than it polls

They are measured (`Costs.measured`); nothing is fitted to the throughputs that the model is then held against. CPUs are
what the model has enough of: a point that shares CPUs is outside of it.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Generator, Iterable, Sequence
from typing import Any

import msgspec

from shardio.bench.results import Percentiles, Point, Run
from shardio.errors import ShardioError

ACCESSES = 400
"""Accesses of a simulated vCPU, after the first tenth, which is not counted."""
WAKE_NS = 25_000.0
POLL_NS = 43_000.0
"""A peer sleeps after this long: 3 us of polls and 40 us of yields (native/wait.h)."""
SCAN_NS = 46.0 / 64
"""A vCPU's idle line in a scan: 64 of them take 46 ns."""
SPREAD = 0.15
"""Of a service time about its median, as a part of it: handlers take longer by chance, never much less."""


class Costs(msgspec.Struct, frozen=True):
    """What the model is fed with: nanoseconds. `wire` is one way; `dispatch` what a shard adds to a handler."""

    wire: float
    dispatch: float
    wake: float = WAKE_NS
    scan: float = SCAN_NS

    @classmethod
    def measured(cls, points: Iterable[Point]) -> Costs:
        """From the points of one vCPU and one shard, the fewest devices: no queue forms there.

        The round trip without a handler is two wires and a dispatch; the dispatch is what two vCPUs on one shard are limited
        by, where that was measured, else half of the round trip. Raises `ShardioError` without such a point.
        """
        free = sorted((p for p in points if p.handler_ns == 0 and p.shards == 1), key=lambda p: (p.devices, p.vcpus))
        single = next((p for p in free if p.vcpus == 1), None)
        if single is None:
            raise ShardioError("no measured point of 1 vCPU x 1 shard with handler 0", "measure scaling with those")
        trip = 1e9 / single.rate
        crowd = [1e9 / p.rate for p in free if p.vcpus > 1 and not p.oversubscribed]
        dispatch = min([*crowd, trip * 0.5])
        return cls(wire=(trip - dispatch) / 2, dispatch=dispatch)


class Prediction(msgspec.Struct, frozen=True):
    """What the model says of vCPUs x shards with handlers of `handler_ns`: accesses a second, and latencies."""

    vcpus: int
    shards: int
    handler_ns: float
    rate: float
    latency: Percentiles


class Check(msgspec.Struct, frozen=True):
    """A measured point beside its prediction; `error` is the part by which the model is too high."""

    point: Point
    prediction: Prediction
    machine: str

    @property
    def error(self) -> float:
        """Of the rate."""
        return self.prediction.rate / self.point.rate - 1


def predict(costs: Costs, vcpus: int, shards: int, handler_ns: float, *, guest_ns: float = 0.0, seed: int = 1,
            accesses: int = ACCESSES) -> Prediction:
    """Simulate. `guest_ns`: what the guest computes between two accesses, on average."""
    import simpy

    random_ = random.Random(seed)
    environment = simpy.Environment()
    servers = [simpy.Resource(environment, capacity=1) for _ in range(shards)]
    idle_since = [0.0] * shards
    latencies: list[float] = []
    counted: list[float] = []
    service = costs.dispatch + handler_ns

    def vcpu(number: int) -> Generator[Any, Any, None]:
        shard = number % shards
        on_shard = len(range(shard, vcpus, shards))
        for turn in range(accesses):
            if guest_ns:
                yield environment.timeout(random_.expovariate(1 / guest_ns))
            began = environment.now
            yield environment.timeout(costs.wire)
            with servers[shard].request() as mine:
                yield mine
                asleep = environment.now - idle_since[shard] > POLL_NS
                spread = abs(random_.gauss(0, SPREAD)) * handler_ns
                yield environment.timeout((costs.wake if asleep else 0.0) + service + spread + costs.scan * (on_shard - 1))
                idle_since[shard] = environment.now
            slept = environment.now - began > POLL_NS
            yield environment.timeout(costs.wire + (costs.wake if slept else 0.0))
            if turn >= accesses // 10:
                latencies.append(environment.now - began)
                counted.append(environment.now)

    for number in range(vcpus):
        environment.process(vcpu(number))
    environment.run()
    # Between the first tenth and the time at which vCPUs begin to be done, all of them are busy.
    counted.sort()
    middle = counted[: max(2, len(counted) * 9 // 10)]
    rate = (len(middle) - 1) * 1e9 / max(1e-9, middle[-1] - middle[0])
    return Prediction(vcpus, shards, handler_ns, rate, Percentiles.of(latencies))


def grid(costs: Costs, vcpus: Sequence[int], shards: Sequence[int], handler_ns: float) -> list[Prediction]:
    """Predictions for every combination; the more vCPUs, the fewer accesses of each are simulated."""
    return [predict(costs, n, m, handler_ns, accesses=max(40, min(ACCESSES, 20_000 // n))) for m in shards for n in vcpus]


def validate(run: Run) -> list[Check]:
    """Every measured point of a run for which there were CPUs enough, beside the model fed with the run's own costs."""
    costs = Costs.measured(run.scaling)
    return [
        Check(point, predict(costs, point.vcpus, min(point.shards, point.devices), measured_handler(run.scaling, point)),
              run.host.machine)
        for point in run.scaling if point.shards and not point.oversubscribed and point.devices <= 100
    ]


def measured_handler(points: Sequence[Point], point: Point) -> float:
    """What the handler of a point takes in a shard: the round trip of one vCPU and one shard, less the one without it.

    Calibrated steps take another time in another process; this is what they took there.
    """
    def trip(handler_ns: int) -> float | None:
        alike = [p for p in points if (p.vcpus, p.shards, p.devices, p.handler_ns) == (1, 1, point.devices, handler_ns)]
        return alike[0].latency.p50 if alike else None

    with_it, without = trip(point.handler_ns), trip(0)
    if with_it is None or without is None:
        return float(point.handler_ns)
    return max(0.0, with_it - without)


def typical_error(checks: Sequence[Check]) -> float:
    """The median size of the error."""
    return statistics.median(abs(check.error) for check in checks)
