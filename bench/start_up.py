"""What it takes to start a shard and devices, and what they hold: milliseconds and KiB."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from shardio.bench.effort import Effort
from shardio.bench.results import Cost
from shardio.machine import Machine

MANY = 10_000
TIMES = 5
BASE = 0xD000_0000
STRIDE = 0x1000
IDLE = b"\xf4\xeb\xfd"
"""A guest that halts."""
DEVICE = "shardio.bench.devices:Register"


def measure(effort: Effort) -> Iterator[Cost]:
    """A machine with one shard, one with two, and one with 10,000 devices. Raises what `Machine` raises."""
    step = effort.budget / 3
    first_ms, first_kib = _typical(shards=1, devices=1)
    effort.progress(step)
    yield Cost("a machine of 1 vCPU and 1 shard starts", first_ms, "ms", "from start() to a running guest")
    two_ms, two_kib = _typical(shards=2, devices=2)
    effort.progress(step)
    yield Cost("one shard more", two_ms - first_ms, "ms", "started side by side")
    yield Cost("memory of a shard", two_kib - first_kib, "KiB", "private pages of its process")
    many_ms, many_kib = _started(shards=1, devices=MANY)
    effort.progress(step)
    yield Cost(f"a machine of {MANY:,} devices starts", many_ms, "ms", "reach: 2,000 ms")
    each_kib = (many_kib - first_kib) / (MANY - 1)
    yield Cost("memory of a device", each_kib, "KiB", "in its shard, the object included")


def _typical(*, shards: int, devices: int) -> tuple[float, float]:
    """Medians of `_started`."""
    times, sizes = zip(*(_started(shards=shards, devices=devices) for _ in range(TIMES)), strict=True)
    return statistics.median(times), statistics.median(sizes)


def _started(*, shards: int, devices: int) -> tuple[float, float]:
    """Milliseconds from `start` until it runs, and the KiB that its shards hold for themselves."""
    with Machine(memory="1M", shards=shards, irqchip=False, max_ranges=devices) as vm:
        vm.load(IDLE)
        for number in range(devices):
            place = BASE + number * STRIDE % 0x2800_0000
            vm.add(DEVICE, mmio=place, size=16, name=f"d{number}", shard=f"s{number % shards}")
        began = time.perf_counter()
        vm.start()
        took = (time.perf_counter() - began) * 1000
        return took, sum(_private_kib(shard.pid) for shard in vm.statistics().shards if shard.pid)


def _private_kib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("Private_"))
