"""The floor of an exit: the same guest, whose accesses are answered where it leaves, in C (`native/measure`).
It has no worker, shard or fabric: nothing of what is measured is in it.

`InLoop` is a VM of KVM, answered where KVM_RUN returns; `OwnProcess` is Unicorn, which leaves its guest in
tens of nanoseconds, answered by its own hook.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

from shardio._measure import ffi, lib
from shardio.bench.blocks import PATIENCE, Block, whole
from shardio.closing import Closing
from shardio.memory import GuestMemory
from shardio.soft.library import library
from shardio.vcpu.kvm import KvmHypervisor

ENTRY = 0x1000
KVM_EXITS, SOFT_EXITS = 400, 20_000
"""Of a block: a millisecond or some."""
WARM_UP = 20
STOPPED = "the guest does not go on", "see `shardio doctor`"


class Loop(Closing):
    """A guest without devices; each vCPU has a thread of its own on its CPU of `cpus`, -1: anywhere.

    A vCPU keeps its thread: KVM waits for a grace period when another one takes it over.
    """

    def __init__(self, cpus: Sequence[int]) -> None:
        self._held, self._threads = ExitStack(), list[ThreadPoolExecutor]()
        self.blocks: list[Callable[[], Block]] = []
        for cpu in cpus:
            place = {cpu} if cpu >= 0 else os.sched_getaffinity(0)
            pool = ThreadPoolExecutor(1, initializer=os.sched_setaffinity, initargs=(0, place))
            self._threads.append(self._held.enter_context(pool))

    def exit_ns(self) -> float:
        """Nanoseconds of an exit from a vCPU's point of view, all of them running at once; a block during
        which one lost its CPU is measured again. Raises `BenchError` when the guest does not go on.
        """
        for _ in range(PATIENCE):
            jobs = [thread.submit(block) for thread, block in zip(self._threads, self.blocks, strict=True)]
            found = [job.result() for job in jobs]
            if not any(block.stolen for block in found):
                break
        return sum(block.ns for block in found) / len(found)

    def close(self) -> None:
        """Give everything back."""
        self._held.close()


class InLoop(Loop):
    """KVM, in 32-bit mode. Raises `KvmError` or `HostError` where it cannot be used."""

    def __init__(self, code: bytes, cpus: Sequence[int] = (-1,)) -> None:
        super().__init__(cpus)
        with ExitStack() as undo:
            undo.callback(self.close)
            self.memory = self._held.enter_context(GuestMemory(1 << 20))
            self.memory.write(ENTRY, code)
            hypervisor = self._held.enter_context(KvmHypervisor(self.memory, len(cpus), irqchip=False))
            hypervisor.set_entry("protected", ENTRY)
            for vcpu in hypervisor.vm.vcpus:
                run = partial(lib.sio_measure_exits, vcpu.fd, vcpu.run_struct)
                self.blocks.append(partial(whole, run, (WARM_UP, KVM_EXITS), *STOPPED))
            undo.pop_all()


class OwnProcess(Loop):
    """Unicorn. Raises `HostError` where it is not installed."""

    def __init__(self, code: bytes, cpus: Sequence[int] = (-1,)) -> None:
        path, text = ffi.new("char[]", os.fsencode(library())), ffi.new("char[]", code)
        super().__init__(cpus[:1])
        run = partial(lib.sio_measure_software, path, text, len(code))
        self.blocks = [partial(whole, run, (SOFT_EXITS,), *STOPPED)]
