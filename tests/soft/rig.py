"""A software machine without a supervisor: its workers, and an owner of its devices in a thread here."""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

from shardio import MmioRange, PioRange
from shardio.interrupt import InterruptManager
from shardio.memory import GuestMemory
from shardio.soft.machine import SoftMachine
from shardio.vcpu import VcpuState
from shardio.vcpu.soft import SoftWorker
from tests.fabric.support import PATIENCE_S, Bench, Log, bench
from tests.guests.build import LOAD_ADDRESS, result_address

EXIT_PORT = 0xF4


class TestedWorker(SoftWorker):
    """A worker that can be waited for."""

    @property
    def cpu(self) -> Any:
        """`struct sio_soft *`."""
        return self._vcpu

    def wait_for_death(self) -> int:
        """The signal that ended it, 0 where it left."""
        ready, _, _ = select.select([self.pidfd], [], [], PATIENCE_S)
        assert ready, "the worker lives on"
        cause = self.reap()
        assert cause is not None
        return cause

    def close(self) -> None:
        if self.pidfd >= 0:
            self.kill()
            self.wait_for_death()
        super().close()


class Rig:
    """A machine of `vcpus` vCPUs that runs `image` from real mode. Devices: `add`, and the exit port."""

    def __init__(self, b: Bench, image: bytes, vcpus: int, irqchip: bool, memory: int) -> None:
        self.stack = ExitStack()
        self.bench, self.vcpus = b, vcpus
        self.memory = self.stack.enter_context(GuestMemory(memory))
        self.machine = self.stack.enter_context(SoftMachine(self.memory, vcpus, irqchip))
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.stack.callback(os.close, self.event)
        if image:
            self.memory.write(LOAD_ADDRESS, image)
            self.machine.set_entry("real", LOAD_ADDRESS)
        self.workers: list[TestedWorker] = []
        for index in range(vcpus):
            told = self.machine.told(index, b.fabric, b.doorbells, self.event)
            worker = TestedWorker(self.machine.record, b.fabric, told, None)
            self.workers.append(worker)
            self.stack.callback(worker.close)
        self.owner = b.owner()
        self.exit = Log()
        self.add(self.exit, PioRange(EXIT_PORT, 1))
        self.managers: list[InterruptManager] = []

    def add(self, device: object, *spans: PioRange | MmioRange, posted: bool = False) -> None:
        for span in spans or getattr(device, "ranges", ()):
            self.bench.add(self.owner, device, span, posted=posted)

    def interrupts(self) -> InterruptManager:
        """For one device."""
        assert self.machine.interrupts is not None
        manager = InterruptManager(self.machine.interrupts)
        self.stack.callback(manager.close)
        return manager

    def attach(self, device: Any) -> None:
        """Attach a controller, and route its ranges."""
        host = SimpleNamespace(
            interrupts=self.interrupts(), loop=asyncio.new_event_loop(), persistent=None, trigger=None
        )
        self.stack.callback(host.loop.close)
        device.attach(host)
        self.stack.callback(device.detach)
        self.add(device)

    def serve(self) -> None:
        """The owner serves from now on: all devices are there."""
        self.stack.enter_context(self.bench.serving(self.owner))

    def start(self) -> None:
        self.serve()
        for worker in self.workers:
            worker.spawn()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait, looking whenever a vCPU's state changes and now and then."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {[worker.state.name for worker in self.workers]}"
            select.select([self.event], [], [], 0.005)

    def until_state(self, *states: VcpuState) -> None:
        self.until(lambda: all(worker.state in states for worker in self.workers), f"not all {states}")

    def run(self) -> int:
        """Start, and wait for the guest's exit: what it wrote."""
        self.start()
        self.until(lambda: bool(self.exit.seen), "no exit")
        value = self.exit.seen[0][2]
        assert value is not None
        return value

    def result(self, offset: int, vcpu: int = 0, size: int = 4) -> int:
        return int.from_bytes(self.memory.read(result_address(vcpu, offset), size), "little")


@contextmanager
def rig(
    image: bytes = b"", vcpus: int = 1, *, irqchip: bool = True, memory: int = 2 << 20, ranges: int = 16
) -> Iterator[Rig]:
    """A machine whose owner will serve in a thread."""
    with bench(vcpus=vcpus, ranges=ranges) as b:
        made = Rig(b, image, vcpus, irqchip, memory)
        with made.stack:
            yield made


class Killer(Log):
    """Has the worker killed during chosen accesses, by their number from 1 on."""

    def __init__(self) -> None:
        super().__init__()
        self.kill_at: set[int] = set()
        self.kill: Callable[[], None] = lambda: None
        self.lock = threading.Lock()

    def read(self, offset: int, size: int) -> int:
        value = super().read(offset, size)
        self._kill()
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        super().write(offset, size, value)
        self._kill()

    def _kill(self) -> None:
        if len(self.seen) in self.kill_at:
            self.kill_at.discard(len(self.seen))
            self.kill()
