"""What a round trip is made of: `python -m shardio.bench.profile` prints the parts of "Where the time goes"
in docs/explanation/performance_history.md. The whole is in the rows of `shardio bench quick`.

Each part is timed alone, on one CPU, in batches: no peer touches its lines meanwhile. What a round trip takes
beyond the floor and these parts is what the two processes do to each other.
"""

from __future__ import annotations

import os
import random
import statistics
import time

from shardio._measure import lib
from shardio.bench import steps
from shardio.bench.blocks import address_array, new_block, tick_ns
from shardio.bench.devices import make
from shardio.bench.far import call_locally
from shardio.bench.pair import Handlers, Setting
from shardio.bench.rows import BASE, MMIO, PAGE
from shardio.fabric import Owner

BATCH = 256
"""Posted writes at a time: they fit into the ring."""
ROUNDS, PAUSES, CALLS = 200, 10_000, 5_000


def alone(device: str, ranges: int) -> tuple[float, float]:
    """Nanoseconds of a posted write, and of serving it, for writes to `ranges` ranges at random."""
    handlers = Handlers(0, MMIO, BASE, 16, device, ranges, PAGE, posted=True)
    setting = Setting([handlers])
    owner, client = Owner(setting.fabric, 0), setting.client()
    for index, span in enumerate(handlers.ranges):
        owner.set_handler(index, span, make(device), posted=True)
    anywhere = random.Random(1).choices(range(ranges), k=BATCH)
    times = []
    for _ in range(ROUNDS):
        random.shuffle(anywhere)
        at = address_array(BASE + PAGE * number for number in anywhere)
        block = new_block(BATCH, at, space=MMIO, size=4, write=1, every=1 << 20)
        posting = lib.sio_measure_access(client.view, block) * tick_ns()
        began = time.perf_counter_ns()
        owner.scan()
        times.append((posting / BATCH, (time.perf_counter_ns() - began) / BATCH))
    owner.close()
    setting.close()
    post, serve = (statistics.median(each) for each in zip(*times, strict=True))
    return post, serve


def main() -> None:
    """Print the tables."""
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs\n\n| alone, on one CPU | ns |\n|---|---|")
    pauses = (lib.sio_measure_pauses(PAUSES) * tick_ns() / PAUSES for _ in range(ROUNDS))
    print(f"| a `pause` | {statistics.median(pauses):.1f} |")
    for device, ranges in (("native", 1), ("native", 100), ("native", 10_000), ("register", 1)):
        post, serve = alone(device, ranges)
        print(f"| a posted write, {ranges:,} ranges | {post:.1f} |")
        print(f"| serving it, {device} handler | {serve:.1f} |", flush=True)
    print(f"| that handler called from Python | {call_locally(make('register'), True, CALLS) / CALLS:.1f} |")
    print("\n| instructions | client | owner |\n|---|---|---|")
    for device in ("native", "register"):
        client, owner = steps.instructions(device) or ("-", "-")
        print(f"| {device} | {client} | {owner} |")


if __name__ == "__main__":
    main()
