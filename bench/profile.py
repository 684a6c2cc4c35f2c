"""What a round trip is made of: `python -m shardio.bench.profile` prints the parts of
docs/explanation/performance_history.md, "Where the time goes".

Each part is timed alone, on one CPU, in batches: no peer touches its lines meanwhile. What a round trip takes
beyond the floor and these parts is what the two processes do to each other.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

from shardio._measure import lib
from shardio.bench.blocks import address_array, new_block, tick_ns
from shardio.bench.devices import make
from shardio.bench.far import call_locally
from shardio.bench.messages import Handlers
from shardio.bench.pair import Pair, Setting
from shardio.fabric import Owner
from shardio.range import MmioRange

MMIO = 1
BASE = 0xD000_0000
STRIDE = 0x1000
BATCH = 256
"""Posted writes at a time: they fit into the ring."""
ROUNDS = 200
PAUSES = 10_000
CALLS = 5_000
PAIRS = 60
BLOCK = 4096


def alone(device: str, ranges: int) -> tuple[float, float]:
    """Nanoseconds of a posted write, and of serving it, for writes to `ranges` ranges at random."""
    handlers = Handlers(0, MMIO, BASE, 16, device, count=ranges, stride=STRIDE, posted=True)
    setting = Setting([handlers])
    owner, client = Owner(setting.fabric, 0), setting.client()
    for index in range(ranges):
        owner.set_handler(index, MmioRange(BASE + index * STRIDE, 16), make(device), posted=True)
    anywhere = random.Random(1).choices(range(ranges), k=BATCH)
    pushes, serves = [], []
    for _ in range(ROUNDS):
        random.shuffle(anywhere)
        at = address_array(BASE + STRIDE * number for number in anywhere)
        block = new_block(BATCH, at, space=MMIO, size=4, write=1, every=1 << 20)
        pushes.append(lib.sio_measure_access(client.view, block) * tick_ns() / BATCH)
        began = time.perf_counter_ns()
        served = owner.scan()
        serves.append((time.perf_counter_ns() - began) / BATCH)
        assert served == BATCH
    owner.close()
    setting.close()
    return statistics.median(pushes), statistics.median(serves)


def _alone(device: str, ranges: int, which: int) -> float:
    return alone(device, ranges)[which]


def together(device: str) -> tuple[float, float, float]:
    """Nanoseconds: the floor, a round trip to `device` in another process, and of that its service."""
    setting = Setting([Handlers(0, MMIO, BASE, STRIDE, device)])
    floors, trips, at = [], [], address_array([BASE])
    with Pair([setting], _cpus()) as pair:
        client = setting.client()
        for _ in range(PAIRS):
            floors.append(pair.floor(BLOCK).ns)
            trips.append(pair.work(client, BLOCK, MMIO, at).ns)
        service = setting.fabric.service(0, 0).percentile_ns(0.5)
    return statistics.median(floors), statistics.median(trips), service


def pause() -> float:
    """Nanoseconds of one `pause`."""
    return statistics.median(
        lib.sio_measure_pauses(PAUSES) * tick_ns() / PAUSES for _ in range(ROUNDS)
    )


def _cpus() -> tuple[int, int] | None:
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[-1]) if len(allowed) > 1 else None


def _parts() -> Iterator[tuple[str, Callable[[], float]]]:
    device = make("register")
    yield "a `pause`", pause
    for ranges in (1, 100, 10_000):
        yield f"a posted write, {ranges:,} ranges", partial(_alone, "native", ranges, 0)
        yield f"serving it, native handler, {ranges:,} ranges", partial(_alone, "native", ranges, 1)
    yield "serving it, Python handler", partial(_alone, "register", 1, 1)
    yield "that handler called from Python", lambda: call_locally(device, True, CALLS) / CALLS


def main() -> None:
    """Print the table."""
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs; nanoseconds, medians")
    print("\n| alone, on one CPU | ns |\n|---|---|")
    for name, measure in _parts():
        print(f"| {name} | {measure():.1f} |", flush=True)
    print("\n| together | floor | round trip | service, p50 |\n|---|---|---|---|")
    for device in ("native", "register"):
        print(f"| {device} | {' | '.join(f'{each:.0f}' for each in together(device))} |", flush=True)


if __name__ == "__main__":
    main()
