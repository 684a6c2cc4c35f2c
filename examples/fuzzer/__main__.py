"""A fuzzer: random accesses through a port drive a device in a shard, and what its handlers raise is
reported.

python -m examples.fuzzer [SEED [COUNT]]
"""

import asyncio
import random
import sys

from shardio import Dispatcher, Outcome
from shardio.devices import CmosRtc

PIO, BASE, PORTS = 0, 0x70, 2


def fuzz(port, seed: int, count: int) -> dict[str, int]:
    """Make `count` random accesses; how many ended in which way."""
    draw = random.Random(seed)
    ends = dict.fromkeys((outcome.name for outcome in Outcome), 0)
    for _ in range(count):
        address, size = BASE + draw.randrange(PORTS), draw.choice((1, 2, 4))
        if draw.random() < 0.5:
            outcome, _ = port.read(PIO, address, size)
        else:
            outcome = port.write(PIO, address, size, draw.getrandbits(8 * size))
        ends[outcome.name] += 1
    return ends


async def main(seed: int = 1, count: int = 20_000) -> None:
    """Fuzz the clock of a PC, beside a reader of the dispatcher's events."""
    with Dispatcher(vcpus=1, shards=1) as dispatcher:
        events = dispatcher.events()
        dispatcher.add(CmosRtc, pio=BASE, memory=64 << 20)
        ends = await asyncio.to_thread(fuzz, dispatcher.port(0), seed, count)
        print(ends)
        statistics = dispatcher.statistics()
        print("shard started", statistics.shards[0].spawns, "time(s)")
    async for event in events:
        print(event)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
