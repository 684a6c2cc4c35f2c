"""How dispatch scales: accesses a second over vCPUs x shards x devices x what a handler computes.

Each vCPU is a thread in the compiled core that makes one access after the other, as a worker process
would; each shard is a process. A vCPU drives the devices of one shard, at random; vCPUs beyond the
shards share them. `shards` 0 is the single process: vCPU threads that take the GIL and ask one
`IoManager` with the same devices. All kinds are measured in turn.
"""

from __future__ import annotations

import itertools
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from shardio._measure import ffi, lib
from shardio.address import MmioAddress
from shardio.bench.blocks import SAMPLE_EVERY, new_block, tick_ns
from shardio.bench.devices import calibrated_steps, make
from shardio.bench.effort import START_S, Effort
from shardio.bench.errors import BenchError
from shardio.bench.pair import FarProcess, Handlers, Setting
from shardio.bench.results import Percentiles, Point
from shardio.io_manager import IoManager
from shardio.range import MmioRange

MMIO = 1
BASE = 0x1_0000_0000
STRIDE = 0x1000
SIZE = 16
CHOICES = 4096
BLOCK_OPERATIONS = 1 << 21
SLICE = 0.15
"""A block's part of the effort's seconds: there are many."""

T = TypeVar("T")


class Load(NamedTuple):
    """What one block gave: accesses a second and single latencies in nanoseconds."""

    rate: float
    samples: Sequence[float]


class Grid(NamedTuple):
    """What to vary. `handlers`: nanoseconds."""

    devices: Sequence[int]
    vcpus: Sequence[int]
    shards: Sequence[int]
    handlers: Sequence[int]

    @property
    def points(self) -> int:
        """How many measurements, those of the single process included."""
        return len(self.devices) * len(self.vcpus) * (len(self.shards) + 1) * len(self.handlers)


def measure(grid: Grid, effort: Effort) -> Iterator[Point]:
    """Every combination of the grid, and the single process beside each."""
    steps = {ns: calibrated_steps(ns) for ns in grid.handlers}
    for handler_ns, devices in itertools.product(grid.handlers, grid.devices):
        name = f"compute:{steps[handler_ns]}" if handler_ns else "register"
        yield from _one_process(grid, effort, handler_ns, devices, name)
        for shards in grid.shards:
            yield from _sharded(grid, effort, handler_ns, devices, shards, name)


def _sharded(
    grid: Grid, effort: Effort, handler_ns: int, devices: int, shards: int, name: str
) -> Iterator[Point]:
    used = min(shards, devices)
    counts = [devices // used + (shard < devices % used) for shard in range(used)]
    firsts = [sum(counts[:shard]) for shard in range(used)]
    groups = [
        Handlers(first, MMIO, BASE + first * STRIDE, SIZE, name, count, STRIDE)
        for first, count in zip(firsts, counts, strict=True)
    ]
    setting = Setting(groups, vcpus=max(grid.vcpus), shards=used, shard_of=range(used))
    line, far = os.memfd_create("shardio-bench", os.MFD_CLOEXEC), list[FarProcess]()
    os.ftruncate(line, os.sysconf("SC_PAGE_SIZE"))
    try:
        far += (FarProcess([setting.service(shard)], line, None) for shard in range(used))
        effort.progress(START_S)
        for vcpus in grid.vcpus:
            # vCPUs on the first CPUs, shards on those after them, round and round.
            cpus = sorted(os.sched_getaffinity(0))
            for number, process in enumerate(far):
                os.sched_setaffinity(process.process.pid, {cpus[(vcpus + number) % len(cpus)]})
            chosen = [groups[vcpu % used] for vcpu in range(vcpus)]
            seconds = effort.seconds * SLICE
            loads = [_block_sharded(setting, chosen, cpus, seconds) for _ in range(effort.rounds)]
            effort.progress(effort.budget * SLICE)
            yield _point(devices, vcpus, shards, handler_ns, loads)
    finally:
        for process in far:
            process.close()
        os.close(line)
        setting.close()


def _addresses(vcpu: int, first: int, count: int) -> list[int]:
    chosen = random.Random(vcpu).choices(range(first, first + count), k=CHOICES)
    return [BASE + number * STRIDE for number in chosen]


def _block_sharded(setting: Setting, chosen: Sequence[Handlers], cpus: Sequence[int], seconds: float) -> Load:
    duration = int(seconds * 1e9 / tick_ns())
    ports = [setting.client(vcpu) for vcpu in range(len(chosen))]
    clients = [port.view for port in ports]  # opened before the clock runs
    blocks = [
        new_block(BLOCK_OPERATIONS, _addresses(vcpu, group.first, group.number), space=MMIO, size=4)
        for vcpu, group in enumerate(chosen)
    ]

    def drive(vcpu: int) -> int:
        os.sched_setaffinity(0, {cpus[vcpu % len(cpus)]})
        blocks[vcpu].until = lib.sio_measure_ticks() + duration
        return int(lib.sio_measure_access(clients[vcpu], blocks[vcpu]))

    ticks = _in_threads(drive, len(chosen))
    if any(block.failed for block in blocks):
        raise BenchError("accesses were not answered", "report this as a fault of shardio")
    rate = sum(block.done * 1e9 / (taken * tick_ns()) for block, taken in zip(blocks, ticks, strict=True))
    samples = [value * tick_ns() for block in blocks for value in ffi.unpack(block.samples, block.sampled)]
    return Load(rate, samples)


def _one_process(grid: Grid, effort: Effort, handler_ns: int, devices: int, name: str) -> Iterator[Point]:
    manager = IoManager()
    for number in range(devices):
        manager.register_mmio(MmioRange(BASE + number * STRIDE, SIZE), make(name))
    for vcpus in grid.vcpus:
        seconds = effort.seconds * SLICE
        loads = [_block_one_process(manager, devices, vcpus, seconds) for _ in range(effort.rounds)]
        effort.progress(effort.budget * SLICE)
        yield _point(devices, vcpus, 0, handler_ns, loads)


def _block_one_process(manager: IoManager, devices: int, vcpus: int, seconds: float) -> Load:
    def drive(vcpu: int) -> Load:
        addresses = itertools.cycle([MmioAddress(address) for address in _addresses(vcpu, 0, devices)])
        data, taken, done = memoryview(bytearray(4)), list[int](), 0
        clock, leave_guest = time.perf_counter_ns, lib.sio_measure_guest
        began = now = clock()
        end = began + int(seconds * 1e9)
        while now < end:
            for _ in range(SAMPLE_EVERY - 1):
                leave_guest(0)
                manager.mmio_read(next(addresses), data)
            begin = clock()
            leave_guest(0)
            manager.mmio_read(next(addresses), data)
            now = clock()
            taken.append(now - begin)
            done += SAMPLE_EVERY
        return Load(done * 1e9 / (now - began), taken)

    loads = _in_threads(drive, vcpus)
    return Load(sum(load.rate for load in loads), [value for load in loads for value in load.samples])


def _in_threads(drive: Callable[[int], T], vcpus: int) -> list[T]:
    """What `drive(vcpu)` returns in a thread each, all at once. All have ended, even when interrupted: what
    they use is closed afterwards.
    """
    barrier = threading.Barrier(vcpus)

    def main(vcpu: int) -> T:
        barrier.wait()
        return drive(vcpu)

    with ThreadPoolExecutor(vcpus) as pool:
        return list(pool.map(main, range(vcpus)))


def _point(devices: int, vcpus: int, shards: int, handler_ns: int, loads: Sequence[Load]) -> Point:
    rates = [load.rate for load in loads]
    middle = statistics.median(rates)
    shared = vcpus + min(shards, devices) > len(os.sched_getaffinity(0))
    latency = Percentiles.of(value for load in loads for value in load.samples) or Percentiles(0, 0, 0)
    spread = (max(rates) - min(rates)) / middle
    return Point(devices, vcpus, shards, handler_ns, middle, spread, latency, shared)
