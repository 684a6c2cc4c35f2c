"""Real KVM exits: the same exit of the same guest answered by a device in a shard, and inside the
KVM_RUN loop in C.

In turn: while the guest in the VM of `inloop` runs, the machine is paused. A block of the machine's is a
time in which the worker's own count of exits tells how many there were. A block during which a worker or the
shard was switched out is set aside and measured again; this process's own waking at the end of the block may
cost one switch.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from shardio._core import lib
from shardio.bench.blocks import PATIENCE
from shardio.bench.bound import Costs
from shardio.bench.effort import Effort
from shardio.bench.errors import BenchError
from shardio.bench.inloop import InLoop, OwnProcess
from shardio.bench.results import Figure, Rounds, Unit
from shardio.machine import Machine
from shardio.vcpu.worker import Worker

PORT = 0x80
ADDRESS = 0xD000_0000
BLOCK_S = 0.004
LEAST_EXITS = 50
OWN_SWITCHES = 1
SETTLE_S = 0.001
"""After a pause, before a block: the shard polls again."""
START_TIMEOUT_S = 10.0
TRIP_NS = 300.0
"""A round trip to a Python handler and its service, about: little beside an exit."""
DEVICES = {name: f"shardio.bench.devices:{name.capitalize()}" for name in ("register", "native", "view")}

_SWITCHES = re.compile(r"^nonvoluntary_ctxt_switches:\s*(\d+)", re.MULTILINE)


class Guest(NamedTuple):
    """A guest that does nothing but one access, over and over: its code, the mode that it begins in,
    what it does.
    """

    code: bytes
    mode: str
    title: str
    mmio: bool = False


# Each ends with a jump back to its first byte.
GUESTS = {
    "pio-in": Guest(b"\xe4\x80\xeb\xfc", "real", "PIO read"),
    # dec %ecx between the accesses: the loop that a QEMU guest counts with.
    "pio-count": Guest(b"\xe4\x80\x66\x49\x75\xfa\xeb\xf8", "real", "PIO read, counted"),
    "pio-out": Guest(b"\xe6\x80\xeb\xfc", "real", "PIO write"),
    "mmio-read": Guest(b"\xa1\x00\x00\x00\xd0\xeb\xf9", "protected", "MMIO read", True),
    "mmio-write": Guest(b"\xa3\x00\x00\x00\xd0\xeb\xf9", "protected", "MMIO write", True),
    # mov $64, %cx; mov $0x2000, %si; mov $0x80, %dx; rep outsb: one exit for all of them, or a few.
    "rep-outsb": Guest(
        b"\xb9\x40\x00\xbe\x00\x20\xba\x80\x00\xf3\x6e\xeb\xf3", "real", "rep outsb, 64 bytes"
    ),
}


class Case(NamedTuple):
    """A guest and the form of the device that answers it. `vcpus`: how many run the guest, all on the one
    device; `cpu`: "kvm", or "soft" for the software CPU, whose floor is a Unicorn that answers itself.
    """

    guest: str
    device: str = "register"
    vcpus: int = 1
    cpu: str = "kvm"
    name: str = ""
    reach: float | None = None
    gate: float | None = None

    @property
    def title(self) -> str:
        """For a table."""
        many = f", {self.vcpus} vCPUs" if self.vcpus > 1 else ""
        kind = "KVM" if self.cpu == "kvm" else "software"
        return f"{kind} exit, {GUESTS[self.guest].title}{many}, {self.device} device"

    def measure(self, effort: Effort) -> Iterator[Figure]:
        """The time of an exit that a device in a shard answers, as a multiple of one answered in the loop.

        Raises `BenchError` when the guest does not run, and what `Machine` raises.
        """
        program, usable = GUESTS[self.guest], len(os.sched_getaffinity(0))
        pin = usable > self.vcpus
        with Machine(memory="1M", vcpus=self.vcpus, shards=1, cpu=self.cpu, irqchip=False, pin=pin) as vm:
            vm.load(program.code, mode=program.mode)
            place: dict[str, Any] = {"mmio": ADDRESS} if program.mmio else {"pio": PORT}
            vm.add(DEVICES[self.device], size=0x1000 if program.mmio else 1, **place)
            vm.start()
            workers, tasks, rounds = _workers(vm), tasks_of(vm), Rounds()
            await_progress(lambda: _exits(workers), "exits")
            cpus = [view.affinity for view in workers]
            with (InLoop if self.cpu == "kvm" else OwnProcess)(program.code, program.mode, cpus) as loop:
                for _ in effort.pairs(rounds):
                    with paused(vm):
                        in_loop = loop.exit_ns()
                    took = undisturbed(tasks, lambda: len(workers) * paced(lambda: _exits(workers)))
                    rounds.add(took, rest=in_loop)
            vm.stop()
            waits = vm.statistics().devices[0]
        note = f"wait p50 {waits.wait_p50_ns:.0f} ns, p99 {waits.wait_p99_ns:.0f} ns"
        name, unit = self.name or f"{self.cpu}-{self.guest}-{self.device}", Unit.IN_LOOP
        if self.cpu == "soft":
            unit = Unit.OWN_PROCESS
        figure = rounds.figure(name, self.title, unit, reach=self.reach, gate=self.gate)
        ours, theirs = 1e9 / figure.operation, 1e9 / figure.reference
        rates = f"{ours:,.0f} a second, {theirs:,.0f} {unit.removeprefix('x ')}"
        figure = msgspec.structs.replace(figure, note=f"{rates}; {note}")
        yield figure if self.vcpus == 1 else self._limited(figure, usable)

    def _limited(self, figure: Figure, cpus: int) -> Figure:
        """With the least that it could be, by `bound`: where CPUs are too few, the shard takes a vCPU's."""
        bound = Costs(trip=TRIP_NS, service=TRIP_NS, exit=figure.reference).bound(self.vcpus, 1, cpus)
        least = self.vcpus * 1e9 / bound.rate / figure.reference
        limit = f"limit {least:.2f} x, by its {bound.limit}"
        return msgspec.structs.replace(figure, note=f"{limit}; {figure.note}", limit=least)


CASES = (
    *(Case(guest) for guest in GUESTS),
    Case("pio-in", "native"),
    Case("pio-in", "view"),
    Case("pio-in", "register", vcpus=2),
)
QUICK = (
    Case("pio-in", "register", name="kvm", reach=1.10, gate=1.25),
    Case("pio-in", "native", cpu="soft", name="soft-native"),
    Case("pio-in", "register", cpu="soft", name="soft"),
)
"""The table's rows."""


@contextlib.contextmanager
def paused(vm: Machine) -> Iterator[None]:
    """The machine leaves its CPUs to somebody else."""
    vm.pause()
    try:
        yield
    finally:
        vm.resume()
        time.sleep(SETTLE_S)


def _workers(vm: Machine) -> list[Any]:
    """The `struct sio_vcpu *` of every vCPU."""
    return [worker.view for worker in vm.dispatcher.supervisor.vcpus if isinstance(worker, Worker)]


def _exits(workers: list[Any]) -> int:
    return sum(int(view.exits[lib.KVM_EXIT_IO] + view.exits[lib.KVM_EXIT_MMIO]) for view in workers)


def await_progress(count: Callable[[], int], what: str) -> None:
    """Wait until a guest has made some. Raises `BenchError` where it does not."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while count() < LEAST_EXITS:
        if time.monotonic() > deadline:
            raise BenchError(f"the guest makes no {what}", "see `shardio doctor`")
        time.sleep(SETTLE_S)


def tasks_of(vm: Machine) -> list[Path]:
    """Where the kernel tells about every worker and the shard."""
    supervisor = vm.dispatcher.supervisor
    pids = [worker.pid for worker in supervisor.vcpus] + [supervisor.shards[0].pid]
    return [Path(f"/proc/{pid}/status") for pid in pids]


def _switches(tasks: list[Path]) -> int:
    """How often these processes had their CPU taken away."""
    return sum(int(number) for task in tasks for number in _SWITCHES.findall(task.read_text()))


def undisturbed(tasks: list[Path], block: Callable[[], float]) -> float:
    """Nanoseconds of a block during which none of `tasks` (`tasks_of`) lost its CPU; of the last one where
    each did. Raises `BenchError` where all blocks give 0: too little to tell.
    """
    ns = 0.0
    for _ in range(PATIENCE):
        before = _switches(tasks)
        ns = (found := block()) or ns
        if found and _switches(tasks) - before <= OWN_SWITCHES:
            break
    if not ns:
        raise BenchError("the guest was given no CPU", "run on a machine where nothing else runs")
    return ns


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
