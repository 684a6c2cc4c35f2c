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
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from shardio._measure import lib
from shardio.address import MmioAddress
from shardio.bench.blocks import SAMPLE_EVERY, new_block, samples_of, tick_ns
from shardio.bench.devices import calibrated_steps, make
from shardio.bench.effort import START_S, Effort
from shardio.bench.errors import BenchError
from shardio.bench.pair import FarProcess, Handlers, Setting
from shardio.bench.results import Percentiles, Point
from shardio.io_manager import IoManager
from shardio.range import MmioRange

MMIO, BASE, STRIDE, SIZE = 1, 0x1_0000_0000, 0x1000, 16
CHOICES, BLOCK_OPERATIONS = 4096, 1 << 21
SLICE = 0.15
"""A block's part of the effort's seconds: there are many."""

Load = tuple[float, Sequence[float]]
"""What a vCPU did in a block: accesses a second and single latencies in nanoseconds."""
Drive = Callable[[int, int], Callable[[], Load]]
"""For a vCPU, and the number of them: gets ready, and gives what drives it."""


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
    seconds = effort.seconds * SLICE
    for ns, devices, shards in itertools.product(grid.handlers, grid.devices, (0, *grid.shards)):
        name = f"compute:{steps[ns]}" if ns else "register"
        with ExitStack() as held:
            if shards:
                drive = _sharded(held, max(grid.vcpus), min(shards, devices), devices, name, seconds)
                effort.progress(START_S)
            else:
                drive = _one_process(devices, name, seconds)
            for vcpus in grid.vcpus:
                blocks = [_block(drive, vcpus) for _ in range(effort.rounds)]
                effort.progress(effort.budget * SLICE)
                yield _point(blocks, devices, vcpus, shards, ns)


def _block(drive: Drive, vcpus: int) -> list[Load]:
    """A thread for each vCPU, all at once. All have ended, even when interrupted: what they use is closed
    afterwards.
    """
    barrier = threading.Barrier(vcpus)

    def main(vcpu: int) -> Load:
        ready = drive(vcpu, vcpus)
        barrier.wait()
        return ready()

    with ThreadPoolExecutor(vcpus) as pool:
        return list(pool.map(main, range(vcpus)))


def _point(blocks: list[list[Load]], devices: int, vcpus: int, shards: int, ns: int) -> Point:
    rates = [sum(rate for rate, _ in loads) for loads in blocks]
    middle = statistics.median(rates)
    latency = Percentiles.of(each for loads in blocks for _, samples in loads for each in samples)
    shared = vcpus + min(shards, devices) > len(os.sched_getaffinity(0))
    spread = (max(rates) - min(rates)) / middle
    return Point(devices, vcpus, shards, ns, middle, spread, latency or Percentiles(0, 0, 0), shared)


def _addresses(vcpu: int, first: int, count: int) -> list[int]:
    chosen = random.Random(vcpu).choices(range(first, first + count), k=CHOICES)
    return [BASE + number * STRIDE for number in chosen]


def _sharded(held: ExitStack, most: int, shards: int, devices: int, name: str, seconds: float) -> Drive:
    firsts = [devices * shard // shards for shard in range(shards + 1)]
    groups = [
        Handlers(first, MMIO, BASE + first * STRIDE, SIZE, name, end - first, STRIDE, shard=shard)
        for shard, (first, end) in enumerate(itertools.pairwise(firsts))
    ]
    setting = Setting(groups, vcpus=most, shards=shards)
    held.callback(setting.close)
    far, cpus = list[FarProcess](), sorted(os.sched_getaffinity(0))
    for shard in range(shards):
        far.append(FarProcess([setting.service(shard)], None))
        held.callback(far[-1].close)

    def drive(vcpu: int, vcpus: int) -> Callable[[], Load]:
        # vCPUs on the first CPUs, shards on those after them, round and round.
        os.sched_setaffinity(0, {cpus[vcpu % len(cpus)]})
        for number in range(vcpu, shards, vcpus):
            os.sched_setaffinity(far[number].process.pid, {cpus[(vcpus + number) % len(cpus)]})
        port, group = setting.client(vcpu), groups[vcpu % shards]
        places = _addresses(vcpu, group.first, group.number)
        block = new_block(BLOCK_OPERATIONS, places, space=MMIO, size=4)
        assert port.view, "it is opened before the clock runs"

        def run() -> Load:
            block.until = lib.sio_measure_ticks() + int(seconds * 1e9 / tick_ns())
            ns = lib.sio_measure_access(port.view, block) * tick_ns()
            if block.failed:
                raise BenchError("accesses were not answered", "report this as a fault of shardio")
            return block.done * 1e9 / ns, samples_of(block)

        return run

    return drive


def _one_process(devices: int, name: str, seconds: float) -> Drive:
    manager = IoManager()
    for number in range(devices):
        manager.register_mmio(MmioRange(BASE + number * STRIDE, SIZE), make(name))

    def run(addresses: Iterator[MmioAddress]) -> Load:
        data, taken, done = memoryview(bytearray(4)), list[int](), 0
        clock, leave_guest = time.perf_counter_ns, lib.sio_measure_leave
        began = now = clock()
        end = began + int(seconds * 1e9)
        while now < end:
            for _ in range(SAMPLE_EVERY - 1):
                leave_guest()
                manager.mmio_read(next(addresses), data)
            begin = clock()
            leave_guest()
            manager.mmio_read(next(addresses), data)
            now = clock()
            taken.append(now - begin)
            done += SAMPLE_EVERY
        return done * 1e9 / (now - began), taken

    def drive(vcpu: int, _vcpus: int) -> Callable[[], Load]:
        return partial(run, itertools.cycle([MmioAddress(at) for at in _addresses(vcpu, 0, devices)]))

    return drive
