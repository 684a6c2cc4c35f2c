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
from typing import Any, NamedTuple

from shardio._measure import ffi, lib
from shardio.address import MmioAddress
from shardio.bench.blocks import SAMPLE_EVERY, address_array, new_block, tick_ns
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


class Load(NamedTuple):
    """What one block gave: accesses a second and single latencies in nanoseconds."""

    rate: float
    samples: list[float]


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
        for shard in range(used):
            far.append(FarProcess([setting.service(shard)], line, None))
        effort.progress(START_S)
        for vcpus in grid.vcpus:
            cpus = _pin(far, vcpus)
            loads = [
                _block_sharded(setting, firsts, counts, vcpus, cpus, effort.seconds * SLICE)
                for _ in range(effort.rounds)
            ]
            effort.progress(effort.budget * SLICE)
            yield _point(devices, vcpus, shards, handler_ns, loads)
    finally:
        for process in far:
            process.close()
        os.close(line)
        setting.close()


def _pin(far: Sequence[FarProcess], vcpus: int) -> list[int]:
    """vCPUs on the first CPUs, shards on those after them, round and round. Returns the CPUs."""
    cpus = sorted(os.sched_getaffinity(0))
    for number, process in enumerate(far):
        os.sched_setaffinity(process.process.pid, {cpus[(vcpus + number) % len(cpus)]})
    return cpus


def _block_sharded(
    setting: Setting,
    firsts: Sequence[int],
    counts: Sequence[int],
    vcpus: int,
    cpus: Sequence[int],
    seconds: float,
) -> Load:
    blocks: list[Any] = []
    duration = int(seconds * 1e9 / tick_ns())
    for vcpu in range(vcpus):
        shard = vcpu % len(firsts)
        chosen = random.Random(vcpu).choices(range(firsts[shard], firsts[shard] + counts[shard]), k=CHOICES)
        addresses = address_array([BASE + number * STRIDE for number in chosen])
        blocks.append(new_block(BLOCK_OPERATIONS, addresses, space=MMIO, size=4))
    ports = [setting.client(vcpu) for vcpu in range(vcpus)]
    clients = [port.view for port in ports]  # opened before the clock runs
    ticks = [0] * vcpus

    def drive(vcpu: int) -> None:
        os.sched_setaffinity(0, {cpus[vcpu % len(cpus)]})
        blocks[vcpu].until = lib.sio_measure_ticks() + duration
        ticks[vcpu] = lib.sio_measure_access(clients[vcpu], blocks[vcpu])

    _in_threads(drive, vcpus)
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
        loads = [
            _block_one_process(manager, devices, vcpus, effort.seconds * SLICE)
            for _ in range(effort.rounds)
        ]
        effort.progress(effort.budget * SLICE)
        yield _point(devices, vcpus, 0, handler_ns, loads)


def _block_one_process(manager: IoManager, devices: int, vcpus: int, seconds: float) -> Load:
    counts, samples = [0.0] * vcpus, [list[float]() for _ in range(vcpus)]

    def drive(vcpu: int) -> None:
        chosen = random.Random(vcpu).choices(range(devices), k=CHOICES)
        addresses = itertools.cycle([MmioAddress(BASE + number * STRIDE) for number in chosen])
        data, clock, leave_guest, taken = (
            memoryview(bytearray(4)),
            time.perf_counter_ns,
            lib.sio_measure_guest,
            samples[vcpu],
        )
        began = now = clock()
        end, done = began + int(seconds * 1e9), 0
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
        counts[vcpu] = done * 1e9 / (now - began)

    _in_threads(drive, vcpus)
    return Load(sum(counts), [value for taken in samples for value in taken])


def _in_threads(drive: Callable[[int], None], vcpus: int) -> None:
    """Run `drive(vcpu)` in a thread each, all at once."""
    barrier = threading.Barrier(vcpus)
    failures: list[BaseException] = []

    def main(vcpu: int) -> None:
        try:
            barrier.wait()
            drive(vcpu)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=main, args=(vcpu,)) for vcpu in range(vcpus)]
    for thread in threads:
        thread.start()
    for thread in threads:
        _join(thread, failures)
    if failures:
        raise failures[0]


def _join(thread: threading.Thread, failures: list[BaseException]) -> None:
    """Wait for it even when interrupted: what it uses is closed afterwards."""
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt as interrupt:
            failures.insert(0, interrupt)


def _point(devices: int, vcpus: int, shards: int, handler_ns: int, loads: Sequence[Load]) -> Point:
    rates = [load.rate for load in loads]
    middle = statistics.median(rates)
    usable = len(os.sched_getaffinity(0))
    return Point(
        devices,
        vcpus,
        shards,
        handler_ns,
        middle,
        (max(rates) - min(rates)) / middle,
        Percentiles.of(value for load in loads for value in load.samples),
        oversubscribed=vcpus + min(shards, devices) > usable if shards else vcpus > usable,
    )
