"""What it takes to start a shard and devices, and what they hold: milliseconds and KiB."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from shardio.bench.effort import Effort
from shardio.bench.results import Figure, Unit
from shardio.machine import Machine

MANY = 10_000
TIMES = 5
BASE = 0xD000_0000
STRIDE = 0x1000
IDLE = b"\xf4\xeb\xfd"
"""A guest that halts."""
DEVICE = "shardio.bench.devices:Register"


def measure(effort: Effort) -> Iterator[Figure]:
    """A machine with one shard, one with two, and one with 10,000 devices. Raises what `Machine` raises."""

    def started(count: int, *, shards: int, devices: int) -> tuple[float, float]:
        found = [_started(shards=shards, devices=devices) for _ in range(count)]
        effort.progress(effort.budget / 3)
        ms, kib = (statistics.median(each) for each in zip(*found, strict=True))
        return ms, kib

    def cost(title: str, value: float, unit: Unit, note: str) -> Figure:
        return Figure(title, title, unit, value, [value], note=note)

    (first_ms, first_kib), ms = started(TIMES, shards=1, devices=1), Unit.MILLISECONDS
    yield cost("a machine of 1 vCPU and 1 shard starts", first_ms, ms, "from start() to a running guest")
    two_ms, two_kib = started(TIMES, shards=2, devices=2)
    yield cost("one shard more", two_ms - first_ms, ms, "started side by side")
    yield cost("memory of a shard", two_kib - first_kib, Unit.KIB, "private pages of its process")
    many_ms, many_kib = started(1, shards=1, devices=MANY)
    yield cost(f"a machine of {MANY:,} devices starts", many_ms, ms, "reach: 2,000 ms")
    each_kib = (many_kib - first_kib) / (MANY - 1)
    yield cost("memory of a device", each_kib, Unit.KIB, "in its shard, the object included")


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
        pids = [shard.pid for shard in vm.statistics().shards if shard.pid]
        lines = [line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
        return took, sum(float(line.split()[1]) for line in lines if line.startswith("Private_"))
