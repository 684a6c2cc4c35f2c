"""Wake-ups, on a real guest: a doorbell (ioeventfd) until a Python device in a shard has answered it, and an
interrupt (irqfd) from a Python device until a guest in HLT has begun its handler; each against the same guest
and a process that does nothing else, in C (`bare`), on the shard's CPU.

A guest of each kind runs for the whole figure, and the two sides take turns. The doorbell's guest times each
round; the same round with nobody to answer it is taken off.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from shardio.bench import host
from shardio.bench.bare import bare
from shardio.bench.blocks import PATIENCE, tick_ns
from shardio.bench.effort import Effort
from shardio.bench.errors import BenchError
from shardio.bench.exits import ADDRESS
from shardio.bench.guests import await_progress
from shardio.bench.results import Figure, Rounds, Unit
from shardio.device import MutDeviceMmio
from shardio.interrupt import Doorbell, MsiConfig
from shardio.machine import Machine

TARGET, GAP, NUMBER, ANSWER = 0x5000, 0x5004, 0x5008, 0x500C
TIMES, KEPT = 0x6000, 1024
BARE = ADDRESS + 0x10000
IDT, VECTOR = 0x7000, 0x50
BLOCK_S, SETTLE_S = 0.03, 0.01
LEAST = 10
INTERRUPTS = 60
GAP_NS = 150_000
"""Between two rounds: the shard sleeps, and so does the guest."""

# again: mov TARGET, %edi; rdtsc; mov %eax, %esi
# 1: rdtsc; sub %esi, %eax; cmp GAP, %eax; jb 1b
#    incl NUMBER; mov NUMBER, %ebx; rdtsc; mov %eax, %esi; mov %ebx, (%edi)
# 2: cmp %ebx, ANSWER; jne 2b; rdtsc; sub %esi, %eax; and $1023, %ebx; mov %eax, TIMES(, %ebx, 4); jmp again
RINGS = bytes.fromhex(
    "8b3d005000000f3189c60f3129f03b050450000072f4ff05085000008b1d085000000f3189c6891f391d0c50000075f8"
    "0f3129f081e3ff03000089049d00600000ebbd"
)
# lidt IDT - 8; mov $0x8000, %esp; movl $0x1ff, 0xfee000f0 (local APIC on); 1: sti; hlt; jmp 1b
# handler: incl NUMBER; movl $0, 0xfee000b0 (EOI); and an IRET that KVM's emulator knows: pushl 8(%esp);
# andl $~0x200, (%esp); popf; sti; lret $4
HALTS = bytes.fromhex(
    "0f011df86f0000bc00800000c705f000e0feff010000fbf4ebfcff0508500000c705b000e0fe00000000ff742408812424"
    "fffdffff9dfbca0400"
)
HANDLER = 0x1000 + HALTS.index(b"\xff\x05\x08\x50")


class Answering(MutDeviceMmio):
    """Answers its doorbell in memory."""

    mmio_size, dma, doorbells = 0x1000, True, (Doorbell(0, 4),)

    def attach(self, host: Any) -> None:
        self.words = host.memory.view(NUMBER, 8).cast("I")

    def detach(self) -> None:
        self.words.release()

    def write(self, offset: int, size: int, value: int) -> None:
        self.words[1] = value

    def doorbell(self, index: int) -> None:
        self.words[1] = self.words[0]


class Raising(MutDeviceMmio):
    """Raises interrupts when it is told to, and times each until the guest's handler has counted it."""

    mmio_size, dma = 0x1000, True

    def attach(self, host: Any) -> None:
        self.count = host.memory.view(NUMBER, 4).cast("I")
        self.message = host.interrupts.message(MsiConfig(0xFEE0_0000, VECTOR))
        self.message.enable()

    def detach(self) -> None:
        self.count.release()

    def write(self, offset: int, size: int, value: int) -> None:
        """Nobody does."""

    def gsi(self) -> int:
        """Of the message."""
        return int(self.message.gsi)

    def raised(self, n: int, gap: int) -> list[int]:
        """Nanoseconds of `n` interrupts, each `gap` ns after the guest's handler began."""
        return [self._one(gap) for _ in range(n)]

    def _one(self, gap: int) -> int:
        count, trigger, now = self.count, self.message.trigger, time.perf_counter_ns
        begin = now()
        while now() - begin < gap:
            pass
        before, begin = count[0], now()
        trigger()
        while count[0] == before and now() - begin < 1_000_000_000:
            pass
        return now() - begin


class Case(NamedTuple):
    """A row: `gap`, in ns, is between an answer and the next doorbell or interrupt."""

    name: str
    title: str
    gap: int
    measure_in: Callable[[Effort, int, list[Rounds]], None]
    reach: float = 1.2
    gate: float = 1.5

    def measure(self, effort: Effort) -> Iterator[Figure]:
        """As a multiple of the bare process. Raises `BenchError` with one CPU and what `Machine` raises."""
        host.two_cpus()
        collected = [Rounds()]
        self.measure_in(effort, self.gap, collected)
        yield collected[0].figure(self.name, self.title, Unit.BARE, reach=self.reach, gate=self.gate)


def _machine(code: bytes, **more: Any) -> Machine:
    vm = Machine(memory="1M", shards=1, cpu="kvm", pin=True, hang_deadline=60, **more)
    vm.load(code, mode="protected")
    return vm


def _kvm(vm: Machine) -> Any:
    hypervisor: Any = vm.hypervisor
    return hypervisor.vm


def _cpu(vm: Machine) -> int:
    """The shard's."""
    return min(os.sched_getaffinity(vm.dispatcher.supervisor.shards[0].pid))


@contextmanager
def _eventfd() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def doorbells(effort: Effort, gap: int, collected: list[Rounds]) -> None:
    """The guest rings the device, the bare process, and nobody, in turn."""
    with _eventfd() as fd, _machine(RINGS, irqchip=False) as vm:
        vm.add(Answering, mmio=ADDRESS)
        words, times = (vm.memory.view(at, 4 * n).cast("I") for at, n in ((TARGET, 4), (TIMES, KEPT)))
        words[0], words[1] = ANSWER, int(gap / tick_ns())
        _kvm(vm).ioeventfd(fd, BARE, 4, False)
        vm.start()

        def block(target: int) -> float:
            words[0] = target
            for _ in range(PATIENCE):
                time.sleep(SETTLE_S)
                before = words[2]
                time.sleep(BLOCK_S)
                done = words[2]
                if done - before > LEAST:
                    break
            else:
                raise BenchError("the guest was given no CPU", "run on a machine where nothing else runs")
            rounds = range(max(before, done - KEPT) + 1, done)
            return statistics.median(times[n % KEPT] for n in rounds) * tick_ns()

        try:
            await_progress(lambda: words[2])
            with bare("answer", _cpu(vm), fd, vm.memory.fd, NUMBER, ANSWER):
                for _ in effort.pairs(*collected):
                    nobody = block(ANSWER)
                    collected[0].add(block(ADDRESS) - nobody, rest=block(BARE) - nobody)
        finally:
            vm.stop()
            words.release()
            times.release()


def interrupts(effort: Effort, gap: int, collected: list[Rounds]) -> None:
    """The device and the bare process raise the same message, in turn."""
    with _eventfd() as fd, _machine(HALTS) as vm:
        gate = (HANDLER & 0xFFFF) | 8 << 16 | 0x8E00 << 32 | HANDLER >> 16 << 48
        vm.memory.write(IDT - 8, (256 * 8 - 1).to_bytes(2, "little") + IDT.to_bytes(4, "little"))
        vm.memory.write(IDT + 8 * VECTOR, gate.to_bytes(8, "little"))
        device = vm.add(Raising, mmio=ADDRESS)
        vm.start()
        _kvm(vm).irqfd(fd, device.call("gsi"))
        try:
            with bare("raised", _cpu(vm), fd, vm.memory.fd, NUMBER) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                for _ in effort.pairs(*collected):
                    ours = statistics.median(device.call("raised", INTERRUPTS, gap))
                    print(INTERRUPTS, gap, file=process.stdin, flush=True)
                    theirs = statistics.median(map(float, process.stdout.readline().split()))
                    collected[0].add(ours, rest=theirs)
        finally:
            vm.stop()


CASES = (
    Case("doorbell", "doorbell, a device in a shard that sleeps", GAP_NS, doorbells),
    Case("doorbell-next", "doorbell, right after the last one", 0, doorbells),
    Case("irqfd", "interrupt from a shard, a guest in HLT", GAP_NS, interrupts),
)
"""The table's rows."""
