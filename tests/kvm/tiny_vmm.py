"""A VMM of one page: a thread a vCPU in this process, exits answered by one `IoManager` under a lock.

It shows what a guest does without fabric, workers or shards: the reference that those are compared with.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from shardio.address import MmioAddress, PioAddress
from shardio.errors import DeviceNotFound
from shardio.io_manager import IoManager
from shardio.kvm import Exit, Interrupted, IoExit, Kvm, MmioExit, set_entry
from shardio.memory import GuestMemory
from tests.guests.build import LOAD_ADDRESS, result_address

EXIT_PORT = 0xF4


def _no_action(number: int, frame: FrameType | None) -> None:
    """A signal that only interrupts KVM_RUN."""


class TinyVmm:
    """`vcpus` of them, `memory` bytes; make one with `tiny_vmm()`, which closes it."""

    def __init__(self, vcpus: int = 1, memory: int = 2 << 20, irqchip: bool = True) -> None:
        self.kvm = Kvm()
        self.memory = GuestMemory(memory)
        self.vm = self.kvm.create_vm()
        self.vm.set_memory(self.memory)
        if irqchip:
            self.vm.create_irqchip()
            self.vm.create_pit()
        self.vcpus = [self.vm.create_vcpu(index) for index in range(vcpus)]
        for vcpu in self.vcpus:
            vcpu.set_cpuid(vcpus)
        self.io = IoManager()
        self.exits: list[tuple[str, bool, int, int, bytes]] = []
        """What was accessed: ("pio" or "mmio", write, address, width, bytes of all elements)."""
        self.exit_status: int | None = None
        self._lock = threading.Lock()

    def load(self, image: bytes, mode: str = "real", registers: dict[str, int] | None = None) -> None:
        """Puts `image` at the guests' load address and vCPU 0 at its first instruction."""
        self.memory.write(LOAD_ADDRESS, image)
        set_entry(self.vcpus[0], self.memory, mode, LOAD_ADDRESS, registers)

    def result(self, offset: int, vcpu: int = 0, size: int = 4) -> int:
        """A little-endian result of `vcpu`."""
        return int.from_bytes(self.memory.read(result_address(vcpu, offset), size), "little")

    def run(self) -> Exit:
        """Runs until vCPU 0 leaves through the exit port or for a reason that is no access."""
        before = signal.signal(signal.SIGUSR1, _no_action)
        others = [threading.Thread(target=self._run_one, args=(vcpu,)) for vcpu in self.vcpus[1:]]
        try:
            for thread in others:
                thread.start()
            return self._run_one(self.vcpus[0])
        finally:
            for thread, vcpu in zip(others, self.vcpus[1:], strict=True):
                vcpu.kick()
                while thread.is_alive():
                    signal.pthread_kill(thread.ident or 0, signal.SIGUSR1)
                    thread.join(0.01)
            signal.signal(signal.SIGUSR1, before)

    def _run_one(self, vcpu: Any) -> Exit:
        while True:
            found = vcpu.run()
            if not isinstance(found, IoExit | MmioExit):
                return found
            with self._lock:
                self._answer(found)
            if isinstance(found, IoExit) and found.port == EXIT_PORT and found.is_write:
                self.exit_status = found.data[0]
                vcpu.kick()
                # The OUT is complete only after the vCPU was entered again.
                assert isinstance(vcpu.run(), Interrupted)
                return found

    def _answer(self, found: IoExit | MmioExit) -> None:
        if isinstance(found, MmioExit):
            self._element("mmio", found.is_write, found.address, found.data)
        else:
            for start in range(0, len(found.data), found.size):
                element = found.data[start : start + found.size]
                self._element("pio", found.is_write, found.port, element)
        kind, address = ("mmio", found.address) if isinstance(found, MmioExit) else ("pio", found.port)
        self.exits.append((kind, found.is_write, address, found.size, bytes(found.data)))

    def _element(self, kind: str, is_write: bool, address: int, data: memoryview) -> None:
        method = getattr(self.io, f"{kind}_{'write' if is_write else 'read'}")
        try:
            method(PioAddress(address) if kind == "pio" else MmioAddress(address), data)
        except DeviceNotFound:
            if not is_write:
                data[:] = b"\xff" * len(data)

    def close(self) -> None:
        """Closes the VM, its memory and /dev/kvm."""
        self.vm.close()
        self.memory.close()
        self.kvm.close()


@contextmanager
def tiny_vmm(**options: Any) -> Iterator[TinyVmm]:
    """A `TinyVmm(**options)` for a with-block."""
    vmm = TinyVmm(**options)
    try:
        yield vmm
    finally:
        vmm.close()
