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

from shardio._core import lib
from shardio.bench.blocks import PATIENCE
from shardio.bench.effort import Effort
from shardio.bench.errors import BenchError
from shardio.bench.inloop import InLoop
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
DEVICES = {
    "register": "shardio.bench.devices:Register",
    "native": "shardio.bench.devices:Native",
    "view": "shardio.bench.devices:View",
}

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


def measure(
    guest: str,
    device: str,
    effort: Effort,
    *,
    vcpus: int = 1,
    name: str = "",
    reach: float | None = None,
    gate: float | None = None,
) -> Figure:
    """The time of an exit that a device in a shard answers, as a multiple of one answered in the loop.

    `vcpus`: how many run the guest, all on the one device. Raises `BenchError` when the guest does not
    run, and what `Machine` raises.
    """
    program = GUESTS[guest]
    with Machine(
        memory="1M", vcpus=vcpus, shards=1, irqchip=False, pin=len(os.sched_getaffinity(0)) > vcpus
    ) as vm:
        vm.load(program.code, mode=program.mode)
        place: dict[str, Any] = (
            {"mmio": ADDRESS, "size": 0x1000} if program.mmio else {"pio": PORT, "size": 1}
        )
        vm.add(DEVICES[device], **place)
        vm.start()
        workers, tasks = _workers(vm), tasks_of(vm)
        rounds = Rounds()
        _await_exits(workers)
        with InLoop(program.code, program.mode, [view.affinity for view in workers]) as loop:
            for _ in effort.pairs(rounds):
                with paused(vm):
                    in_loop = loop.exit_ns()
                rounds.add(undisturbed(tasks, lambda: len(workers) * paced(lambda: _exits(workers))), in_loop)
        vm.stop()
        waits = vm.statistics().devices[0]
    many = f", {vcpus} vCPUs" if vcpus > 1 else ""
    return rounds.figure(
        name or f"kvm-{guest}-{device}",
        f"KVM exit, {program.title}{many}, {device} device in a shard",
        Unit.IN_LOOP,
        reach=reach,
        gate=gate,
        note=f"wait p50 {waits.wait_p50_ns:.0f} ns, p99 {waits.wait_p99_ns:.0f} ns",
    )


@contextlib.contextmanager
def paused(vm: Machine) -> Iterator[None]:
    """The machine leaves its CPUs to somebody else."""
    vm.pause()
    try:
        yield
    finally:
        vm.resume()
        time.sleep(SETTLE_S)


def row(cpus: tuple[int, int], effort: Effort) -> Iterator[Figure]:
    """The table's row: a Python device."""
    yield measure("pio-in", "register", effort, name="kvm", reach=1.10, gate=1.25)


def _workers(vm: Machine) -> list[Any]:
    """The `struct sio_vcpu *` of every vCPU."""
    return [worker.view for worker in vm.dispatcher.supervisor.vcpus if isinstance(worker, Worker)]


def _exits(workers: list[Any]) -> int:
    return sum(int(view.exits[lib.KVM_EXIT_IO] + view.exits[lib.KVM_EXIT_MMIO]) for view in workers)


def _await_exits(workers: list[Any]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while _exits(workers) < 100:
        if time.monotonic() > deadline:
            raise BenchError("the guest makes no exits", "see `shardio doctor`")
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
