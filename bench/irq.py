"""What triggers cost, both ways, on a real guest: `python -m shardio.bench.irq [--quick]` prints the tables
of docs/reference/interrupts.md.

Writes: a guest writes to a device and goes on (its cost), or waits until the device has answered in memory (a
round trip); the write is a plain exit, a posted one, one through KVM's coalesced ring, or a doorbell.
Interrupts: a device in a shard triggers outside an access and watches memory for the first thing that the
guest's handler does; the trigger is an eventfd, or goes through the VMM process, which makes the ioctl.
Order: how often a trigger made during an access had not reached the interrupt controller when the access
completed, with and without the completion's help.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from shardio import Machine, MutDeviceMmio
from shardio._core import lib
from shardio.bench.errors import BenchError
from shardio.bench.guests import MMIO, add_exit_port, guest, result
from shardio.interrupt import Doorbell, MsiConfig

PATIENCE_S = 60.0
ANSWER = 0x9100
TRIGGER_GAP_S = 50e-6
VECTOR = 0x50
RAM = 0xB000
TIMES = 0x4_0000
WAYS = {
    "message, eventfd": (3, 5, "message"),
    "message, through the VMM": (3, 5, "vmm"),
    "line, PIC, eventfd": (0, 5, "line"),
    "line, IOAPIC, eventfd": (1, 20, "line"),
    "line, PIC, through the VMM": (0, 5, "vmm"),
}
"""The guest's mode (tests/guests/irq.inc), the line, and who triggers."""
LINES = {"PIC": (0, 5, "edge"), "IOAPIC, edge": (1, 20, "edge"), "IOAPIC, level": (2, 10, "level")}


class Answering(MutDeviceMmio):
    """A device with one word of memory in its hands."""

    mmio_size = 0x1000
    dma = True

    def attach(self, host: Any) -> None:
        self.host = host
        self.word = host.memory.view(ANSWER, 4).cast("I")

    def detach(self) -> None:
        self.word.release()


class Responder(Answering):
    """Answers a write by the number in memory. With `ring`, by way of a doorbell."""

    def __init__(self, ring: bool = False) -> None:
        self.doorbells = [Doorbell(0, 4)] if ring else []

    def write(self, offset: int, size: int, value: int) -> None:
        self.word[0] = value

    def doorbell(self, index: int) -> None:
        self.word[0] = self.host.doorbells[0].rings[0]


class Caller(Answering):
    """Triggers again and again from its loop, and times each until the guest's handler has begun.

    `way`: "line", "message", or "vmm": the VMM is asked to do it, over the socket that is named `peer`.
    """

    def __init__(self, way: str, peer: str = "") -> None:
        self.way, self.peer = way, peer
        self.times: list[int] = []

    def attach(self, host: Any) -> None:
        super().attach(host)
        if self.way == "message":
            message = host.interrupts.message(MsiConfig(0xFEE0_0000, VECTOR))
            message.enable()
            self.trigger: Callable[[], Any] = message.trigger
        elif self.way == "line":
            self.trigger = host.trigger.trigger
        else:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.connect("\0" + self.peer)
            self.trigger = lambda: sock.send(b"!")

    def write(self, offset: int, size: int, value: int) -> None:
        self.count = value
        self.host.loop.call_later(0.01, self._one)

    def _one(self) -> None:
        before, now = self.word[0], time.perf_counter_ns
        began = now()
        self.trigger()
        while self.word[0] == before and now() - began < 1_000_000_000:
            pass
        self.times.append(now() - began)
        if len(self.times) < self.count:
            self.host.loop.call_later(TRIGGER_GAP_S, self._one)

    def results(self) -> list[int]:
        """Nanoseconds of each."""
        return self.times


class Prompt(MutDeviceMmio):
    """Triggers within a write."""

    mmio_size = 0x1000

    def attach(self, host: Any) -> None:
        self.trigger = host.trigger

    def write(self, offset: int, size: int, value: int) -> None:
        getattr(self.trigger, "deassert", int)()
        self.trigger.trigger()


class Late(Prompt):
    """Triggers within a write by its eventfd alone."""

    def write(self, offset: int, size: int, value: int) -> None:
        getattr(self.trigger, "deassert", int)()
        os.eventfd_write(self.trigger._irqfd.fd, 1)


def _run(vm: Machine) -> None:
    add_exit_port(vm)
    vm.start()
    ended = vm.wait(PATIENCE_S)
    if ended is None or ended.reason != "exit":
        raise BenchError(f"the guest did not come to its end: {ended}", "see `shardio doctor`")


def writes(kind: str, count: int, *, wait: bool) -> tuple[float, float]:
    """p50 and p99 nanoseconds of a write, or of a round."""
    with Machine(memory="2M", shards=1) as vm:
        address = RAM if kind == "ram" else MMIO
        vm.load(guest("respond", COUNT=count, WAIT=int(wait), ADDRESS=address))
        posted: bool | str = "coalesced" if kind == "coalesced" else kind == "posted"
        if kind != "ram":
            vm.add(Responder, mmio=MMIO, posted=posted, ring=kind == "doorbell")
        _run(vm)
        ticks = sorted(vm.memory.view(TIMES, 4 * count).cast("I"))
        fabric = vm.dispatcher.fabric.view
        p50, p99 = (lib.sio_ticks_to_ns(fabric, ticks[count * at // 100]) for at in (50, 99))
    return p50, p99


def interrupts(mode: int, line: int, way: str, count: int, halt: int) -> tuple[float, float]:
    """p50 and p99 nanoseconds from trigger to handler."""
    with Machine(memory="2M", shards=1) as vm:
        vm.load(guest("irq_latency", MODE=mode, IRQ=line, COUNT=count, HALT=halt))
        peer, server = f"shardio-bench-{os.getpid()}", None
        if way == "vmm":
            server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            server.bind("\0" + peer)
            server.listen()
            threading.Thread(target=_vmm, args=(server, vm, line if mode != 3 else None), daemon=True).start()
        device = vm.add(Caller, mmio=MMIO, way=way, peer=peer, irq=line if way == "line" else None)
        _run(vm)
        times = sorted(device.call("results"))
        if server is not None:
            server.close()
    return statistics.median(times), times[len(times) * 99 // 100]


def _vmm(server: socket.socket, vm: Any, line: int | None) -> None:
    sock, _ = server.accept()
    while sock.recv(1):
        if line is None:
            vm.hypervisor.vm.signal_msi(0xFEE0_0000, VECTOR)
        else:
            vm.hypervisor.vm.irq_line(line, 1)
            vm.hypervisor.vm.irq_line(line, 0)


def order(mode: int, line: int, device: Any, count: int, irq_mode: str = "edge") -> int:
    """Of `count` accesses, those after which the controller did not have the interrupt."""
    with Machine(memory="2M", shards=1) as vm:
        vm.load(guest("irq_order", MODE=mode, IRQ=line, COUNT=count))
        vm.add(device, mmio=MMIO, irq=line, irq_mode=irq_mode)
        _run(vm)
        return result(vm, 4)


def _table(head: str, rows: Iterable[tuple[str, Iterable[object]]]) -> None:
    print(f"\n| {head} |\n{'|---' * (head.count(' | ') + 1)}|")
    for name, cells in rows:
        print(f"| {name} | {' | '.join(map(str, cells))} |", flush=True)


def main() -> None:
    """Print the tables."""
    scale = 10 if "--quick" in sys.argv else 1
    loop, _ = writes("ram", 4000 // scale, wait=False)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs")
    print(f"a round without a device takes {loop / 1000:.2f} us: taken off")

    def of_write(kind: str) -> Iterator[str]:
        for count, wait in ((4000, False), (1000, True)):
            yield from (f"{(ns - loop) / 1000:.1f} us" for ns in writes(kind, count // scale, wait=wait))

    def of_interrupt(mode: int, line: int, way: str) -> Iterator[str]:
        for halt in (0, 1):
            yield from (f"{ns / 1000:.1f} us" for ns in interrupts(mode, line, way, 1000 // scale, halt))

    def of_order(mode: int, line: int, irq_mode: str) -> Iterator[int]:
        yield from (order(mode, line, device, 2000 // scale, irq_mode) for device in (Late, Prompt))

    kinds = ("plain", "posted", "coalesced", "doorbell")
    head = "write | cost to the guest: p50 | p99 | until the device has answered: p50 | p99"
    _table(head, ((kind, of_write(kind)) for kind in kinds))
    head = "interrupt, to the handler's first instruction | spinning guest: p50 | p99 | HLT: p50 | p99"
    _table(head, ((name, of_interrupt(*what)) for name, what in WAYS.items()))
    head = "trigger during an access, 2000 of them | late with the eventfd alone | with the completion"
    _table(head, ((name, of_order(*what)) for name, what in LINES.items()))


if __name__ == "__main__":
    main()
