"""A model of machines larger than ours: a closed queueing network, simulated event by event.

N vCPUs each run guest code for a while, send one access to a shard, and wait for the answer; a shard
serves one access at a time, in the order of arrival (its scan of the lines is fair). What an access
costs:

  out           until the shard sees the request: half of a native round trip, less its service
  service       what the shard does for one access: bookkeeping, and the handler
  scan          for each vCPU's line that it looks at, while it serves one
  back          until the vCPU sees the answer: the same half
  wake          what a sleeping peer adds, when it has waited longer than it polls
  switch        what handing a CPU over adds, where more than one process has to share it

They are measured (`Costs.measured`); nothing is fitted to the throughputs that the model is then held
against. CPUs are a resource like shards: a handler holds its CPU to the end, a vCPU that waits gives its
own up.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Generator, Sequence
from typing import Any

import msgspec

from shardio.bench.errors import BenchError
from shardio.bench.results import Percentiles, Point, Run

CACHED_DEVICES = 100
ACCESSES = 400
"""Accesses of a simulated vCPU, after the first tenth, which is not counted."""
WAKE_NS = 25_000.0
POLL_NS = 43_000.0
"""A peer sleeps after this long: 3 us of polls and 40 us of yields (native/wait.h)."""
SCAN_NS = 46.0 / 64
"""A vCPU's idle line in a scan: 64 of them take 46 ns."""
SPIN_NS = 3000
SWITCH_NS = 1500.0
"""Half of a round trip between two processes on one CPU, where the run has not measured it."""
SPREAD = 0.15
"""Of a service time about its median, as a part of it: handlers take longer by chance, never much less."""


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
        """From the point of one vCPU and one shard without a handler, the fewest devices: no queue forms
        there. Its round trip is the two wires, which together are the floor, and the dispatch. Raises
        `BenchError` without such a point.
        """
        single = min(
            (p for p in run.scaling if (p.handler_ns, p.shards, p.vcpus) == (0, 1, 1)),
            key=lambda p: p.devices,
            default=None,
        )
        if single is None:
            raise BenchError(
                "no measured point of 1 vCPU x 1 shard with handler 0", "measure scaling with those"
            )
        trip = 1e9 / single.rate
        floors = [row.floor.p50 for row in run.rows if row.floor is not None]
        floor = min(statistics.median(floors), trip * 0.9) if floors else trip / 2
        shared = next((row.operation / 2 for row in run.rows if row.name == "one-cpu"), SWITCH_NS)
        return cls(wire=floor / 2, dispatch=trip - floor, switch=shared)


class Prediction(msgspec.Struct, frozen=True):
    """What the model says of vCPUs x shards with handlers of `handler_ns`: accesses a second, and
    latencies.
    """

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


class _Machine:
    """The simulated resources. With `cpus`, vCPUs and shards are pinned round and round, as in the
    measurements.
    """

    def __init__(self, environment: Any, costs: Costs, vcpus: int, shards: int, cpus: int | None) -> None:
        import simpy

        self.environment, self.costs = environment, costs
        count = cpus or vcpus + shards
        processors = [simpy.Resource(environment, capacity=1) for _ in range(count)]
        self.shards = [simpy.Resource(environment, capacity=1) for _ in range(shards)]
        self.idle_since = [0.0] * shards
        self._vcpu_cpu = [number % count for number in range(vcpus)]
        self._shard_cpu = [(vcpus + number) % count for number in range(shards)]
        used = self._vcpu_cpu + self._shard_cpu
        self._shared = [used.count(number) > 1 for number in range(count)]
        self._processors = processors

    def serve(self, shard: int, ns: float) -> Generator[Any, Any, None]:
        """A shard works on one access: on its CPU, woken first if it slept."""
        with self.shards[shard].request() as turn:
            yield turn
            asleep = self.environment.now - self.idle_since[shard] > POLL_NS
            yield from self._hold(self._shard_cpu[shard], ns + (self.costs.wake if asleep else 0.0))
            self.idle_since[shard] = self.environment.now

    def resume(self, vcpu: int, waited: float) -> Generator[Any, Any, None]:
        """The answer is there: the vCPU goes on, once it has its CPU."""
        yield from self._hold(
            self._vcpu_cpu[vcpu], self.costs.wire + (self.costs.wake if waited > POLL_NS else 0.0)
        )

    def _hold(self, cpu: int, ns: float) -> Generator[Any, Any, None]:
        with self._processors[cpu].request() as mine:
            yield mine
            yield self.environment.timeout(ns + (self.costs.switch if self._shared[cpu] else 0.0))


def predict(
    costs: Costs,
    vcpus: int,
    shards: int,
    handler_ns: float,
    *,
    cpus: int | None = None,
    seed: int = 1,
    accesses: int = ACCESSES,
) -> Prediction:
    """Simulate. `cpus`: how many there are (None: one for everybody)."""
    import simpy

    random_ = random.Random(seed)
    environment = simpy.Environment()
    machine = _Machine(environment, costs, vcpus, shards, cpus)
    latencies: list[float] = []
    ended: list[float] = []

    def vcpu(number: int) -> Generator[Any, Any, None]:
        shard = number % shards
        scan = costs.scan * (len(range(shard, vcpus, shards)) - 1)
        for turn in range(accesses):
            began = environment.now
            yield environment.timeout(costs.wire)
            chance = abs(random_.gauss(0, SPREAD)) * handler_ns
            yield from machine.serve(shard, costs.dispatch + handler_ns + chance + scan)
            yield from machine.resume(number, environment.now - began)
            if turn >= accesses // 10:
                latencies.append(environment.now - began)
                ended.append(environment.now)

    for number in range(vcpus):
        environment.process(vcpu(number))
    environment.run()
    # Until the first vCPUs are done, all of them are busy.
    ended.sort()
    middle = ended[: max(2, len(ended) * 9 // 10)]
    rate = (len(middle) - 1) * 1e9 / max(1e-9, middle[-1] - middle[0])
    return Prediction(vcpus, shards, handler_ns, rate, Percentiles.of(latencies))


def grid(costs: Costs, vcpus: Sequence[int], shards: Sequence[int], handler_ns: float) -> list[Prediction]:
    """Predictions for every combination; the more vCPUs, the fewer accesses of each are simulated."""
    return [
        predict(costs, n, m, handler_ns, accesses=max(30, min(ACCESSES, 6_000 // n)))
        for m in shards
        for n in vcpus
    ]


def validate(run: Run) -> list[Check]:
    """The measured points of a run beside the model fed with the run's own costs, on as many CPUs as it had.

    Left out: points of so many devices that caches decide; and points that share CPUs while handlers are
    shorter than the polls of a waiting vCPU, which keeps its CPU that long: who runs is the scheduler's
    choice there, not a queue's.
    """
    costs = Costs.measured(run)
    return [
        Check(
            point,
            predict(
                costs,
                point.vcpus,
                min(point.shards, point.devices),
                measured_handler(run.scaling, point),
                cpus=run.host.usable_cpus,
            ),
            run.host.machine,
        )
        for point in run.scaling
        if point.shards
        and point.devices <= CACHED_DEVICES
        and (not point.oversubscribed or point.handler_ns >= SPIN_NS)
    ]


def measured_handler(points: Sequence[Point], point: Point) -> float:
    """What the handler of a point takes in a shard: the round trip of one vCPU and one shard, less the
    one without it.

    Calibrated steps take another time in another process; this is what they took there.
    """

    def trip(handler_ns: int) -> float | None:
        alike = [
            p
            for p in points
            if (p.vcpus, p.shards, p.devices, p.handler_ns) == (1, 1, point.devices, handler_ns)
        ]
        return alike[0].latency.p50 if alike else None

    with_it, without = trip(point.handler_ns), trip(0)
    if with_it is None or without is None:
        return float(point.handler_ns)
    return max(0.0, with_it - without)


def typical_error(checks: Sequence[Check]) -> float:
    """The median size of the error."""
    return statistics.median(abs(check.error) for check in checks)
