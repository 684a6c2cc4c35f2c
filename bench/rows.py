"""The data path's rows: native and Python handlers, 64 vCPUs' lines, posted writes, one CPU, routing.

A row is measured in pairs of blocks, floor and work in turn, and stated twice: as the multiple that its unit
says, and as nanoseconds and instructions beyond what it is a multiple of.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from shardio.bench import steps
from shardio.bench.blocks import address_array
from shardio.bench.effort import Effort
from shardio.bench.pair import Handlers, Pair, Setting
from shardio.bench.results import Figure, Rounds, Unit

MMIO = 1
BASE = 0xD000_0000
PAGE = 0x1000
A_VCPU = 31
ONE_CPU = "both ends on one CPU"


class Row(NamedTuple):
    """How it is called, what answers, its unit, and what it is held against: `reach` and `gate` in the unit,
    `gate_ns` in nanoseconds beyond. The last ones say what is not as in a plain round trip.
    """

    name: str
    title: str
    device: str = "native"
    unit: Unit = Unit.FLOOR
    reach: float | None = None
    gate: float | None = None
    gate_ns: float | None = None
    vcpus: int = 1
    posted: bool = False
    one_cpu: bool = False
    among: int = 1

    def measure(self, cpus: tuple[int, int], effort: Effort) -> Iterator[Figure]:
        """The row's figure."""
        one = Handlers(0, MMIO, BASE, PAGE, self.device, posted=self.posted)
        settings = [Setting([one], vcpus=self.vcpus)]
        if self.among > 1:
            settings.append(Setting([Handlers(0, MMIO, BASE, 16, self.device, self.among, PAGE)]))
        at, rounds, local, n = address_array([BASE]), Rounds(), 0.0, effort.n
        chosen = random.Random(1).choices(range(self.among), k=8192)
        anywhere = address_array(BASE + PAGE * number for number in chosen)
        with Pair(settings, cpus) as pair:
            client, last = settings[0].client(A_VCPU % self.vcpus), settings[-1].client(A_VCPU % self.vcpus)
            floor = pair.floor(n)
            if self.one_cpu:
                pair.pin(cpus[0], cpus[0])
                pair.again, n = False, max(200, n // 10)
            for _ in effort.pairs(rounds):
                if not self.one_cpu:
                    floor = pair.floor(n // (4 if self.among > 1 else 1))
                if self.among > 1:
                    local = pair.work(client, n, MMIO, at).ns
                elif self.unit in (Unit.EXPECTED, Unit.LOCAL):
                    local = pair.local(n, write=self.posted)
                if self.posted:
                    work = pair.work(client, 4 * n, MMIO, at, write=True, posted=BASE)
                else:
                    work = pair.work(last, n, MMIO, anywhere)
                rounds.add(work.ns, floor, local, () if self.posted else work.samples)
        aside = self.one_cpu or self.among > 1
        counted = None if aside else steps.beyond(self.device, posted=self.posted)
        yield rounds.figure(
            self.name,
            self.title,
            self.unit,
            waits=not self.posted,
            reach=self.reach,
            gate=self.gate,
            gate_ns=self.gate_ns,
            instructions=counted,
            note=f"local call {local:.0f} ns" if self.unit in (Unit.EXPECTED, Unit.LOCAL) else "",
            set_aside=pair.set_aside,
        )


ROWS = (
    Row("native", "native handler, synchronous", reach=1.10, gate=1.25, gate_ns=25),
    Row("vcpus64", "the same, scanning 64 vCPUs", reach=1.6, gate=1.8, vcpus=64),
    Row("python", "Python handler, register form", "register", Unit.EXPECTED, 1.15, 1.35, 30),
    Row("view", "Python handler, memoryview form", "view"),
    Row("posted", "posted write, C to C, a message", reach=0.07, gate=0.12, posted=True),
    Row("posted-python", "posted write into Python, a message", "register", Unit.LOCAL, 1.6, 2, posted=True),
    Row("one-cpu", f"{ONE_CPU}, native handler", "native", Unit.MICROSECONDS, 5, 10, one_cpu=True),
    Row("one-cpu-python", f"{ONE_CPU}, Python handler", "register", Unit.MICROSECONDS, 5, 10, one_cpu=True),
    Row("routing-1000", "routing, 1,000 ranges against 1", unit=Unit.ONE_RANGE, among=1000),
    Row("routing", "routing, 10,000 ranges against 1", "native", Unit.ONE_RANGE, 1.3, 1.5, among=10_000),
)
