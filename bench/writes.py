"""Writes that a guest need not wait for: posted, in KVM's coalesced ring, or a doorbell (ioeventfd); against
the same write answered inside the KVM_RUN loop in C (`inloop`).

One guest writes again and again, to the address that a word of its memory names, and counts in another: the
host turns it from one device to the next, so all kinds are measured in one running machine, in turn. It
writes without a pause, so a figure is the pace that can be kept up: rings are full, doorbells rung while the
last ring is being served are one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from shardio.bench.effort import Effort
from shardio.bench.exits import (
    ADDRESS,
    DEVICES,
    SETTLE_S,
    await_progress,
    paced,
    paused,
    tasks_of,
    undisturbed,
)
from shardio.bench.inloop import InLoop
from shardio.bench.results import Figure, Rounds, Unit
from shardio.machine import Machine
from shardio.vcpu.worker import Worker

COUNT, TARGET = 0x5000, 0x5008
# again: mov TARGET, %edi; mov %eax, (%edi); incl COUNT; jmp again
GUEST = b"\x8b\x3d\x08\x50\x00\x00\x89\x07\xff\x05\x00\x50\x00\x00\xeb\xf0"
PAGE = 0x1000
PLAIN, *KINDS = ("plain", "posted", "coalesced", "doorbell")
POSTED: dict[str, bool | str] = {"posted": True, "coalesced": "coalesced"}
TITLES = {
    "posted": "posted MMIO write: an exit, not waited for",
    "coalesced": "coalesced MMIO write: KVM's ring, no exit",
    "doorbell": "doorbell: an ioeventfd, no exit",
}


def measure(effort: Effort) -> Iterator[Figure]:
    """A figure of each kind. Raises `BenchError` when the guest does not run, and what `Machine` raises."""
    with Machine(memory="1M", shards=1, cpu="kvm", irqchip=False, pin=len(os.sched_getaffinity(0)) > 1) as vm:
        vm.load(GUEST, mode="protected")
        places = {kind: ADDRESS + PAGE * number for number, kind in enumerate((PLAIN, *KINDS))}
        for kind, place in places.items():
            device = "shardio.bench.devices:Bell" if kind == "doorbell" else DEVICES["register"]
            posted = POSTED.get(kind, False)
            vm.add(device, mmio=place, size=PAGE, posted=posted, shard="s0")
        words = vm.memory.view(COUNT, 16).cast("I")
        words[2] = places[PLAIN]
        vm.start()
        try:
            yield from _figures(vm, words, places, effort)
        finally:
            vm.stop()
            words.release()


def _figures(vm: Machine, words: memoryview, places: dict[str, int], effort: Effort) -> Iterator[Figure]:
    first = vm.dispatcher.supervisor.vcpus[0]
    assert isinstance(first, Worker)
    tasks = tasks_of(vm)

    def block(kind: str) -> float:
        words[2] = places[kind]
        time.sleep(SETTLE_S)
        return undisturbed(tasks, lambda: paced(lambda: words[0]))

    collected = {kind: Rounds() for kind in KINDS}
    await_progress(lambda: words[0], "writes")
    with InLoop(GUEST, "protected", [first.view.affinity]) as loop:
        loop.memory.write(TARGET, ADDRESS.to_bytes(4, "little"))
        for _ in effort.pairs(*collected.values()):
            for kind, rounds in collected.items():
                with paused(vm):
                    in_loop = loop.exit_ns()
                rounds.add(block(kind), rest=in_loop)
    for kind, rounds in collected.items():
        yield rounds.figure(f"kvm-{kind}", f"KVM, {TITLES[kind]}", Unit.IN_LOOP)
