"""Real exits: a guest does one access over and over, answered by a device in a shard, or by QEMU's own
(`peers.qemu`), and by the same loop of exits in C (`inloop`).

In turn: the other guest is paused while the loop's runs. A block of the other's is a time in which a count
tells how many accesses there were: the workers' of exits, or the guest's in its memory, where writes do not
exit. A block during which a process was switched out is set aside and measured again; this process's own
waking at its end may cost one switch.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from shardio._core import lib
from shardio.bench.blocks import PATIENCE
from shardio.bench.bound import Costs
from shardio.bench.effort import Effort
from shardio.bench.errors import BenchError
from shardio.bench.inloop import InLoop, Loop, OwnProcess
from shardio.bench.results import Figure, Rounds, Unit
from shardio.machine import Machine
from shardio.vcpu.worker import Worker

PORT, ADDRESS = 0x80, 0xFED0_0000
"""Where QEMU's PC has a port that it ignores, and the HPET."""
COUNT, MANY = 0x800, 16
"""Where a guest counts its accesses, and how many at a time: few instructions are to be beside them."""
BLOCK_S, LEAST_EXITS, OWN_SWITCHES = 0.004, 50, 1
SETTLE_S = 0.001
"""After a pause, before a block: the shard polls again."""
START_TIMEOUT_S = 10.0
TRIP_NS = 300.0
"""A round trip to a Python handler and its service, about: little beside an exit."""

_SWITCHES = re.compile(r"^nonvoluntary_ctxt_switches:\s*(\d+)", re.MULTILINE)


class Guest(NamedTuple):
    """What a guest in 32-bit mode does, over and over, and how that is called."""

    access: bytes
    title: str
    mmio: bool = False

    def code(self, times: int = 1) -> bytes:
        """Its program: a loop around so many accesses, which are counted if they are many."""
        count = b"\xff\x05" + COUNT.to_bytes(4, "little") if times > 1 else b""
        body = self.access * times + count
        return body + bytes((0xEB, 256 - 2 - len(body)))


GUESTS = {
    "pio-in": Guest(b"\xe4\x80", "PIO read"),
    "pio-out": Guest(b"\xe6\x80", "PIO write"),
    "mmio-read": Guest(b"\xa1" + ADDRESS.to_bytes(4, "little"), "MMIO read", True),
    "mmio-write": Guest(b"\xa3" + ADDRESS.to_bytes(4, "little"), "MMIO write", True),
    # mov $64, %ecx; mov $0x2000, %esi; mov $0x80, %edx; rep outsb: one exit for all of them, or a few.
    "rep-outsb": Guest(bytes.fromhex("b940000000 be00200000 ba80000000 f36e"), "rep outsb, 64 bytes"),
}
UNWAITED = {
    "posted": "posted MMIO write: an exit, not waited for",
    "coalesced": "coalesced MMIO write: KVM's ring, no exit",
    "doorbell": "doorbell: an ioeventfd, no exit",
}
"""Writes that a guest need not wait for. It makes them without a pause, so a figure is the pace that can be
kept up: rings are full, doorbells that are rung while the last ring is being served are one.
"""


class Case(NamedTuple):
    """A guest and the form of the device that answers it. `vcpus`: how many run the guest, all on the one
    device; `cpu`: "kvm", or "soft" for the software CPU, whose floor is a Unicorn that answers itself;
    `unwaited`: the kind of write that it is; `times`: accesses in a turn of the guest's loop.
    """

    guest: str
    device: str = "register"
    vcpus: int = 1
    cpu: str = "kvm"
    unwaited: str = ""
    times: int = 1
    name: str = ""
    reach: float | None = None
    gate: float | None = None

    @property
    def title(self) -> str:
        """For a table."""
        if self.unwaited:
            return f"KVM, {UNWAITED[self.unwaited]}"
        many = f", {self.vcpus} vCPUs" if self.vcpus > 1 else ""
        kind = "KVM" if self.cpu == "kvm" else "software"
        return f"{kind} exit, {GUESTS[self.guest].title}{many}, {self.device} device"

    def measure(self, effort: Effort) -> Iterator[Figure]:
        """The time of an exit that a device in a shard answers, as a multiple of one answered in the loop.

        Raises `BenchError` when the guest does not run, and what `Machine` raises.
        """
        program, usable = GUESTS[self.guest], len(os.sched_getaffinity(0))
        code, pin, rounds = program.code(self.times), usable > self.vcpus, Rounds()
        place: Any = {"mmio": ADDRESS, "size": 0x1000} if program.mmio else {"pio": PORT, "size": 1}
        posted: Any = {"posted": True, "coalesced": "coalesced"}.get(self.unwaited, False)
        with Machine(memory="1M", vcpus=self.vcpus, shards=1, cpu=self.cpu, irqchip=False, pin=pin) as vm:
            vm.load(code, mode="protected")
            vm.add(f"shardio.bench.devices:{self.device.capitalize()}", posted=posted, **place)
            vm.start()
            supervisor, words = vm.dispatcher.supervisor, vm.memory.view(COUNT, 4).cast("I")
            workers = [worker for worker in supervisor.vcpus if isinstance(worker, Worker)]

            def count() -> int:
                if self.unwaited:
                    return MANY * words[0]
                exits = [worker.view.exits for worker in workers]
                return sum(int(each[lib.KVM_EXIT_IO] + each[lib.KVM_EXIT_MMIO]) for each in exits)

            @contextmanager
            def paused() -> Iterator[None]:
                vm.pause()
                yield
                vm.resume()

            tasks = [*(worker.pid for worker in workers), supervisor.shards[0].pid]
            cpus = [worker.view.affinity for worker in workers]
            with (InLoop if self.cpu == "kvm" else OwnProcess)(code, cpus) as loop:
                alternate(rounds, effort, loop, count, lambda: tasks, paused, self.vcpus)
            words.release()
            vm.stop()
            waits = vm.statistics().devices[0]
        name, unit = self.name or f"{self.cpu}-{self.guest}-{self.device}", Unit.IN_LOOP
        if self.cpu == "soft":
            unit = Unit.OWN_PROCESS
        figure = rounds.figure(name, self.title, unit, reach=self.reach, gate=self.gate)
        ours, theirs = 1e9 / figure.operation, 1e9 / figure.reference
        note = f"{ours:,.0f} a second, {theirs:,.0f} {unit.removeprefix('x ')}"
        if not self.unwaited:
            note += f"; wait p50 {waits.wait_p50_ns:.0f} ns, p99 {waits.wait_p99_ns:.0f} ns"
        if self.vcpus > 1:  # the least that it could be: where CPUs are too few, the shard takes a vCPU's
            bound = Costs(trip=TRIP_NS, service=TRIP_NS, exit=figure.reference).bound(self.vcpus, 1, usable)
            least = self.vcpus * 1e9 / bound.rate / figure.reference
            note = f"limit {least:.2f} x, by its {bound.limit}; {note}"
        yield msgspec.structs.replace(figure, note=note)


CASES = (
    *(Case(guest, device, times=MANY) for guest in list(GUESTS)[:4] for device in ("native", "register")),
    Case("rep-outsb"),
    Case("pio-in", "view", times=MANY),
    Case("pio-in", "register", vcpus=2, times=MANY, name="kvm-2-vcpus"),
    Case("mmio-write", unwaited="posted", times=MANY, name="kvm-posted"),
    Case("mmio-write", unwaited="coalesced", times=MANY, name="kvm-coalesced"),
    Case("mmio-write", "bell", unwaited="doorbell", times=MANY, name="kvm-doorbell"),
)
QUICK = (
    Case("pio-in", "register", name="kvm", reach=1.10, gate=1.25),
    Case("pio-in", "native", cpu="soft", name="soft-native"),
    Case("pio-in", "register", cpu="soft", name="soft"),
)
"""The table's rows."""


def alternate(
    rounds: Rounds, effort: Effort, loop: Loop, count: Callable[[], int],
    tasks: Callable[[], Iterable[int]], resting: Callable[[], AbstractContextManager[None]], vcpus: int = 1,
) -> None:  # fmt: skip
    """Pairs of blocks: an access of a guest of this `count`, run by `tasks` (processes or threads), and one
    in the loop while it is `resting`. Raises `BenchError` where it makes none.
    """
    await_progress(count)
    states = [Path(f"/proc/{task}/status") for task in tasks()]
    for _ in effort.pairs(rounds):
        with resting():
            in_loop = loop.exit_ns()
        time.sleep(SETTLE_S)
        rounds.add(vcpus * undisturbed(states, lambda: paced(count)), rest=in_loop)


def await_progress(count: Callable[[], int]) -> None:
    """Wait until a guest has made accesses. Raises `BenchError` where it does not."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while count() < LEAST_EXITS:
        if time.monotonic() > deadline:
            raise BenchError("the guest makes no accesses", "see `shardio doctor`")
        time.sleep(SETTLE_S)


def undisturbed(states: Sequence[Path], block: Callable[[], float]) -> float:
    """Nanoseconds of a block during which none of these tasks lost its CPU; of the last one where each did.
    Raises `BenchError` where all blocks give 0: too little to tell.
    """
    ns = 0.0
    for _ in range(PATIENCE):
        before = _switches(states)
        ns = (found := block()) or ns
        if found and _switches(states) - before <= OWN_SWITCHES:
            break
    if not ns:
        raise BenchError("the guest was given no CPU", "run on a machine where nothing else runs")
    return ns


def _switches(states: Sequence[Path]) -> int:
    return sum(int(number) for state in states for number in _SWITCHES.findall(state.read_text()))


def paced(count: Callable[[], int]) -> float:
    """Nanoseconds of one of what `count` counts: over a block's time, or as many blocks as it takes to tell
    where other programs have the CPUs. 0 when there were too few even then.
    """
    before, began = count(), time.monotonic_ns()
    for _ in range(PATIENCE):
        time.sleep(BLOCK_S)
        done, ended = (count() - before) % (1 << 32), time.monotonic_ns()
        if done >= LEAST_EXITS:
            return (ended - began) / done
    return 0.0
