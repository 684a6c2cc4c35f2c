"""The floor of a real exit: the same guest in a VM of its own, whose accesses are answered where KVM_RUN
returns, in C (`native/measure`). It has no worker, shard or fabric: nothing of what is measured is in it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from shardio._measure import lib
from shardio.bench.blocks import PATIENCE, Block, new_block, timed
from shardio.bench.errors import BenchError
from shardio.closing import Closing
from shardio.memory import GuestMemory
from shardio.vcpu.kvm import KvmHypervisor

ENTRY = 0x1000
EXITS = 400
"""A block: some milliseconds."""
WARM_UP = 20


class InLoop(Closing):
    """A guest without devices; `cpus`: where each vCPU's thread runs, -1 anywhere.

    A vCPU keeps its thread: KVM waits for a grace period when another one takes it over. Raises `KvmError` or
    `HostError` where KVM cannot be used.
    """

    def __init__(self, code: bytes, mode: str, cpus: Sequence[int] = (-1,)) -> None:
        with ExitStack() as undo:
            self.memory = undo.enter_context(GuestMemory(1 << 20))
            self.memory.write(ENTRY, code)
            hypervisor = undo.enter_context(KvmHypervisor(self.memory, len(cpus), irqchip=False))
            hypervisor.set_entry(mode, ENTRY)
            self._vcpus = hypervisor.vm.vcpus
            self._threads = [
                undo.enter_context(ThreadPoolExecutor(1, initializer=settle, initargs=(cpu,)))
                for cpu in cpus
            ]
            self._held = undo.pop_all()

    def exit_ns(self) -> float:
        """Nanoseconds of an exit from a vCPU's point of view, all of them running at once; a block during
        which one lost its CPU is measured again. Raises `BenchError` when the guest does not go on.
        """
        for _ in range(PATIENCE):
            vcpus = zip(self._threads, self._vcpus, strict=True)
            found = [each.result() for each in [thread.submit(_block, vcpu) for thread, vcpu in vcpus]]
            if not any(block.stolen for block in found):
                break
        return sum(block.ns for block in found) / len(found)

    def close(self) -> None:
        """Give the VM back."""
        self._held.close()


def settle(cpu: int) -> None:
    """Run this thread on a CPU; -1: anywhere."""
    if cpu >= 0:
        os.sched_setaffinity(0, {cpu})


def _block(vcpu: Any) -> Block:
    for count in (WARM_UP, EXITS):
        block = new_block(count)
        ticks = lib.sio_measure_exits(vcpu.fd, vcpu.run_struct, block)
        if block.done != count:
            reason = vcpu.run_struct.exit_reason
            raise BenchError(f"the guest ended with exit {reason}", "see `shardio doctor`")
    return timed(block, ticks)
