"""vCPUs, shards and CPUs, simulated event by event (simpy).

Each vCPU makes one access after the other to a shard and waits for the answer; a shard serves one access at a
time, in the order of arrival (its scan of the lines is fair).

  wire          until the other side sees a request or an answer: half a floor
  service       what the shard does for one access: dispatch, scan of the other vCPUs' lines, handler
  switch        handing a CPU to another process
  wake          what a sleeping peer adds

Who waits does as native/wait.h says: it polls for 3 us, holding its CPU; then it yields, so that others on
that CPU run; after 40 us it sleeps. After four waits in a row that polling did not end it yields at once. A
CPU that several share goes to the next in turn when its holder yields or sleeps, or after a slice of 4 ms, if
others want it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Generator
from functools import partial
from typing import Any

import msgspec

from shardio.bench.costs import Costs, Service
from shardio.bench.results import Percentiles

ACCESSES = 400
"""Accesses of a simulated vCPU; the first tenth of the time is not counted."""
SLICES = 5
"""Where CPUs are shared, at least so many slices are simulated..."""
MOST = 20_000
"""...but no more accesses than this."""
SPIN_NS, YIELD_NS = 3_000.0, 40_000.0
YIELD_BIAS, TRY_AGAIN = 4, 32
"""native/wait.h: waits in a row after which polling is left out, and how often it is tried all the same."""
SLICE_NS = 4_000_000.0
"""A tick of a kernel with 250 of them a second: who computes keeps its CPU until one."""

Events = Generator[Any, Any, None]


class Prediction(msgspec.Struct, frozen=True):
    """What the model says of vCPUs x shards with handlers of `handler_ns`: accesses a second, and
    latencies.
    """

    vcpus: int
    shards: int
    handler_ns: float
    rate: float
    latency: Percentiles


class _Cpu:
    """A CPU that processes hold in turn."""

    def __init__(self, environment: Any, switch: float) -> None:
        self._environment, self._switch = environment, switch
        self._waiting: deque[Any] = deque()
        self._holder: object = None
        self._last: object = None
        self._since = 0.0

    def take(self, who: object) -> Events:
        """Wait for one's turn; whoever had the CPU before is switched out."""
        if self._holder is not None or self._waiting:
            turn = self._environment.event()
            self._waiting.append((who, turn))
            yield turn
        self._holder = who
        if self._last not in (who, None):
            yield self._environment.timeout(self._switch)
        self._last, self._since = who, self._environment.now

    def give(self) -> None:
        """Let the next one run."""
        self._holder = None
        if self._waiting:
            self._holder, turn = self._waiting.popleft()
            turn.succeed()

    def compute(self, who: object, ns: float) -> Events:
        """Work, with the CPU in hand; it is taken away after a slice, if others want it."""
        while ns > 0:
            left = SLICE_NS - (self._environment.now - self._since)
            over = left < 1.0  # less may vanish in the sum with a late time
            if over and self._waiting:
                self.give()
                yield from self.take(who)
                continue
            step = ns if over else min(ns, left)
            yield self._environment.timeout(step)
            ns -= step


class _Process:
    """A vCPU or a shard: what it computes and how it waits."""

    def __init__(self, environment: Any, cpu: _Cpu, wake: float) -> None:
        self.environment, self.cpu, self._wake = environment, cpu, wake
        self._bias = self._waits = 0

    def wait(self, word: Any) -> Events:
        """Until an event has come, as native/wait.h waits."""
        environment, began = self.environment, self.environment.now
        self._waits += 1
        if self._bias < YIELD_BIAS or self._waits % TRY_AGAIN == 0:
            yield word | environment.timeout(SPIN_NS)
            if word.processed:
                self._bias = 0
                return
        self._bias = min(YIELD_BIAS, self._bias + 1)
        self.cpu.give()
        if not word.processed:
            yield word
        if environment.now - began > SPIN_NS + YIELD_NS:
            yield environment.timeout(self._wake)
        yield from self.cpu.take(self)


class _Shard(_Process):
    """Serves one access at a time."""

    def __init__(self, environment: Any, cpu: _Cpu, wake: float) -> None:
        super().__init__(environment, cpu, wake)
        self._requests: deque[tuple[Any, float]] = deque()
        self._asked = environment.event()

    def ask(self, answer: Any, ns: float) -> None:
        """A request arrives, which takes `ns`."""
        self._requests.append((answer, ns))
        if not self._asked.triggered:
            self._asked.succeed()

    def run(self, wire: float) -> Events:
        """For ever."""
        yield from self.cpu.take(self)
        while True:
            if not self._requests:
                self._asked = self.environment.event()
                yield from self.wait(self._asked)
            answer, ns = self._requests.popleft()
            yield from self.cpu.compute(self, ns)
            _later(self.environment, wire, answer.succeed)


def _later(environment: Any, ns: float, act: Any) -> None:
    environment.timeout(ns).callbacks.append(lambda _event: act())


def predict(
    costs: Costs,
    vcpus: int,
    shards: int,
    service: Service,
    *,
    cpus: int | None = None,
    seed: int = 1,
    accesses: int = ACCESSES,
) -> Prediction:
    """Simulate. `cpus`: how many there are (None: one for everybody); vCPUs are pinned to the first ones,
    shards to those after them, round and round, as in the measurements.
    """
    import simpy

    random_ = random.Random(seed)
    environment = simpy.Environment()
    count = cpus or vcpus + shards
    processors = [_Cpu(environment, costs.switch) for _ in range(count)]
    servers = [_Shard(environment, processors[(vcpus + i) % count], costs.wake) for i in range(shards)]
    seen: list[tuple[float, float]] = []  # when each access ended, how long it took
    scale = service.spread.mean

    def vcpu(number: int) -> Events:
        shard = servers[number % shards]
        me = _Process(environment, processors[number % count], costs.wake)
        others = len(range(number % shards, vcpus, shards)) - 1
        mean = costs.dispatch + service.handler_ns + costs.scan * others
        yield from me.cpu.take(me)
        while True:
            began, answer = environment.now, environment.event()
            ns = mean * service.spread.draw(random_.random()) / scale
            _later(environment, costs.wire, partial(shard.ask, answer, ns))
            yield from me.wait(answer)
            seen.append((environment.now, environment.now - began))

    for server in servers:
        environment.process(server.run(costs.wire))
    for number in range(vcpus):
        environment.process(vcpu(number))
    wanted = accesses * vcpus
    shared = vcpus + shards > count
    while len(seen) < wanted or (
        shared and environment.now < SLICES * SLICE_NS and len(seen) < MOST
    ):
        environment.step()
    # The first tenth fills the queues.
    begin, end = environment.now / 10, environment.now
    latencies = [took for when, took in seen if when >= begin]
    return Prediction(
        vcpus, shards, service.handler_ns, len(latencies) * 1e9 / (end - begin), Percentiles.of(latencies)
    )
