"""The data path's rows: native and Python handlers, 64 vCPUs' lines, posted writes, one CPU, routing.

A row is a function of the CPUs and the effort that gives figures. Each measures pairs of blocks, floor
and work in turn.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from shardio.bench.blocks import address_array
from shardio.bench.effort import Effort
from shardio.bench.messages import Handlers
from shardio.bench.pair import Pair, Setting
from shardio.bench.results import Figure, Rounds, Unit

MMIO = 1
BASE = 0xD000_0000
PAGE = 0x1000
SLOT_US = 1000.0
WIRES_PER_CALL = 1.2
"""Floors that a Python handler's round trip costs besides the call itself: one, and what the caller's
and the owner's instructions add to it.
"""
MANY_RANGES = 10_000
MANY_VCPUS = 64
A_VCPU = 31


class Row(NamedTuple):
    """A row of the table: how it is called and measured, and how many figures it gives."""

    name: str
    measure: Callable[[tuple[int, int], Effort], Iterator[Figure]]
    figures: int = 1


def _sync(
    name: str,
    title: str,
    device: str,
    cpus: tuple[int, int],
    effort: Effort,
    *,
    vcpus: int = 1,
    vcpu: int = 0,
    reach: float,
    gate: float,
) -> Figure:
    setting = Setting([Handlers(0, MMIO, BASE, PAGE, device)], vcpus=vcpus)
    at, rounds = address_array([BASE]), Rounds()
    with Pair([setting], cpus) as pair:
        client = setting.client(vcpu)
        for _ in effort.pairs(rounds):
            floor = pair.floor(effort.n)
            work = pair.work(client, effort.n, MMIO, at)
            rounds.add(work.ns, floor.ns, floor=floor.samples, latency=work.samples)
    return rounds.figure(name, title, Unit.FLOOR, reach=reach, gate=gate, set_aside=pair.set_aside)


def native(cpus: tuple[int, int], effort: Effort) -> Iterator[Figure]:
    """A native handler, synchronous: one line there and back."""
    yield _sync("native", "native handler, synchronous", "native", cpus, effort, reach=1.10, gate=1.25)


def vcpus_64(cpus: tuple[int, int], effort: Effort) -> Iterator[Figure]:
    """The same by a shard that scans 64 vCPUs' lines, one of which is busy."""
    yield _sync(
        "vcpus64",
        "the same, scanning 64 vCPUs",
        "native",
        cpus,
        effort,
        vcpus=MANY_VCPUS,
        vcpu=A_VCPU,
        reach=1.6,
        gate=1.8,
    )


def python(cpus: tuple[int, int], effort: Effort) -> Iterator[Figure]:
    """A Python handler in the register form against 1.2 floors and the same call made locally."""
    setting = Setting([Handlers(0, MMIO, BASE, PAGE, "register")])
    at, rounds, plain, local_ns = address_array([BASE]), Rounds(), Rounds(), 0.0
    with Pair([setting], cpus) as pair:
        client = setting.client()
        for _ in effort.pairs(rounds, plain):
            floor = pair.floor(effort.n)
            work = pair.work(client, effort.n, MMIO, at)
            local_ns = pair.local(effort.n)
            rounds.add(
                work.ns, WIRES_PER_CALL * floor.ns + local_ns, floor=floor.samples, latency=work.samples
            )
            plain.add(work.ns, floor.ns)
    in_floors = plain.figure("", "", Unit.FLOOR).value
    yield rounds.figure(
        "python",
        "Python handler, register form",
        Unit.EXPECTED,
        reach=1.15,
        gate=1.35,
        note=f"{in_floors:.2f} x floor; local call {local_ns:.0f} ns",
        set_aside=pair.set_aside,
    )


def view(cpus: tuple[int, int], effort: Effort) -> Iterator[Figure]:
    """A Python handler in the memoryview form, in floors."""
    setting = Setting([Handlers(0, MMIO, BASE, PAGE, "view")])
    at, rounds = address_array([BASE]), Rounds()
    with Pair([setting], cpus) as pair:
        client = setting.client()
        for _ in effort.pairs(rounds):
            floor = pair.floor(effort.n)
            work = pair.work(client, effort.n, MMIO, at)
            rounds.add(work.ns, floor.ns, floor=floor.samples, latency=work.samples)
    yield rounds.figure("view", "Python handler, memoryview form", Unit.FLOOR, set_aside=pair.set_aside)


def _posted(
    name: str,
    title: str,
    device: str,
    cpus: tuple[int, int],
    effort: Effort,
    unit: Unit,
    reach: float,
    gate: float,
) -> Figure:
    setting = Setting([Handlers(0, MMIO, BASE, PAGE, device, posted=True)])
    at, rounds = address_array([BASE]), Rounds()
    with Pair([setting], cpus) as pair:
        client = setting.client()
        for _ in effort.pairs(rounds):
            floor = pair.floor(effort.n)
            work = pair.work(client, 4 * effort.n, MMIO, at, write=True, posted=BASE)
            reference = floor.ns if unit is Unit.FLOOR else pair.local(effort.n, write=True)
            rounds.add(work.ns, reference, floor=floor.samples)
    return rounds.figure(name, title, unit, reach=reach, gate=gate, set_aside=pair.set_aside)


def posted_native(cpus: tuple[int, int], effort: Effort) -> Iterator[Figure]:
    """Posted writes, C to C, for each message, the last one served."""
    yield _posted("posted", "posted write, C to C, a message", "native", cpus, effort, Unit.FLOOR, 0.07, 0.12)


def posted_python(cpus: tuple[int, int], effort: Effort) -> Iterator[Figure]:
    """Posted writes into a Python handler, for each message, against the same call made locally."""
    yield _posted(
        "posted-python", "posted write into Python, a message", "register", cpus, effort, Unit.LOCAL, 1.6, 2.0
    )


def one_cpu(cpus: tuple[int, int], effort: Effort) -> Iterator[Figure]:
    """Both ends on one CPU: microseconds for a round trip."""
    for name, device in (("one-cpu", "native"), ("one-cpu-python", "register")):
        setting = Setting([Handlers(0, MMIO, BASE, PAGE, device)])
        at, rounds, n = address_array([BASE]), Rounds(), max(200, effort.n // 10)
        with Pair([setting], cpus) as pair:
            client = setting.client()
            floor = pair.floor(effort.n)
            pair.pin(cpus[0], cpus[0])
            pair.again = False
            for _ in effort.pairs(rounds):
                work = pair.work(client, n, MMIO, at)
                rounds.add(work.ns, SLOT_US, floor=floor.samples, latency=work.samples)
        title = f"both ends on one CPU, {'Python' if device == 'register' else 'native'} handler"
        yield rounds.figure(name, title, Unit.MICROSECONDS, reach=5.0, gate=10.0)


def routing(cpus: tuple[int, int], effort: Effort) -> Iterator[Figure]:
    """A round trip among 10,000 ranges, taken at random, against one where there is only one range."""
    one = Setting([Handlers(0, MMIO, BASE, PAGE, "native")])
    many = Setting([Handlers(0, MMIO, BASE, 16, "native", count=MANY_RANGES, stride=PAGE)])
    at, rounds = address_array([BASE]), Rounds()
    choice = random.Random(1).choices(range(MANY_RANGES), k=8192)
    anywhere = address_array(BASE + PAGE * number for number in choice)
    with Pair([one, many], cpus) as pair:
        client_one, client_many = one.client(), many.client()
        for _ in effort.pairs(rounds):
            floor = pair.floor(effort.n // 4)
            alone = pair.work(client_one, effort.n, MMIO, at)
            among = pair.work(client_many, effort.n, MMIO, anywhere)
            rounds.add(among.ns, alone.ns, floor=floor.samples, latency=among.samples)
    yield rounds.figure(
        "routing",
        "routing, 10,000 ranges against 1",
        Unit.ONE_RANGE,
        reach=1.3,
        gate=1.5,
        set_aside=pair.set_aside,
    )


ROWS = (
    Row("native", native),
    Row("vcpus64", vcpus_64),
    Row("python", python),
    Row("view", view),
    Row("posted", posted_native),
    Row("posted-python", posted_python),
    Row("one-cpu", one_cpu, 2),
    Row("routing", routing),
)
