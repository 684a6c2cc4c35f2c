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
from shardio.bench import host, steps
from shardio.bench.blocks import address_array, new_block, tick_ns
from shardio.bench.devices import make
from shardio.bench.far import call_locally
from shardio.bench.pair import Handlers, Pair, Setting
from shardio.bench.rows import BASE, MMIO, PAGE
from shardio.fabric import Owner

BATCH = 256
"""Posted writes at a time: they fit into the ring."""
ROUNDS, PAUSES, CALLS = 200, 10_000, 5_000
PAIRS, BLOCK = 60, 4096


def alone(device: str, ranges: int, which: int) -> float:
    """Nanoseconds of a posted write (0), or of serving it (1), for writes to `ranges` ranges at random."""
    handlers = Handlers(0, MMIO, BASE, 16, device, ranges, PAGE, posted=True)
    setting = Setting([handlers])
    owner, client = Owner(setting.fabric, 0), setting.client()
    for index, span in enumerate(handlers.ranges):
        owner.set_handler(index, span, make(device), posted=True)
    anywhere = random.Random(1).choices(range(ranges), k=BATCH)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        random.shuffle(anywhere)
        at = address_array(BASE + PAGE * number for number in anywhere)
        block = new_block(BATCH, at, space=MMIO, size=4, write=1, every=1 << 20)
        times[0].append(lib.sio_measure_access(client.view, block) * tick_ns() / BATCH)
        began = time.perf_counter_ns()
        owner.scan()
        times[1].append((time.perf_counter_ns() - began) / BATCH)
    owner.close()
    setting.close()
    return statistics.median(times[which])


def together(device: str) -> tuple[float, ...]:
    """Nanoseconds: the floor by each loop, a round trip to `device` in another process, and its service."""
    setting = Setting([Handlers(0, MMIO, BASE, PAGE, device)])
    found, at = [], address_array([BASE])
    with Pair([setting], host.two_cpus()) as pair:
        client = setting.client()
        for _ in range(PAIRS):
            found.append((*pair.floor(BLOCK).ns, pair.work(client, BLOCK, MMIO, at).ns))
        service = setting.fabric.service(0, 0).percentile_ns(0.5)
    return (*(statistics.median(each) for each in zip(*found, strict=True)), service)


def pause() -> float:
    """Nanoseconds of one `pause`."""
    return statistics.median(lib.sio_measure_pauses(PAUSES) * tick_ns() / PAUSES for _ in range(ROUNDS))


def _parts() -> Iterator[tuple[str, Callable[[], float]]]:
    yield "a `pause`", pause
    for ranges in (1, 100, 10_000):
        yield f"a posted write, {ranges:,} ranges", partial(alone, "native", ranges, 0)
        yield f"serving it, native handler, {ranges:,} ranges", partial(alone, "native", ranges, 1)
    yield "serving it, Python handler", partial(alone, "register", 1, 1)
    yield "that handler called from Python", lambda: call_locally(make("register"), True, CALLS) / CALLS


def main() -> None:
    """Print the tables."""
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs; nanoseconds, medians")
    print("\n| alone, on one CPU | ns |\n|---|---|")
    for name, measure in _parts():
        print(f"| {name} | {measure():.1f} |", flush=True)
    head = "floor with pause", "without", "round trip", "service, p50", "instructions, client and owner"
    print(f"\n| together | {' | '.join(head)} |")
    print("|---|---|---|---|---|---|")
    for device in ("native", "register"):
        times = " | ".join(f"{each:.0f}" for each in together(device))
        print(f"| {device} | {times} | {steps.instructions(device)} |", flush=True)


if __name__ == "__main__":
    main()
