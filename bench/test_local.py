"""What is called in one process: the bus, among 1 to 10,000 ranges, and printing a byte beside the shortest
handler.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from shardio import MmioAddress, MmioBus, MmioRange
from shardio.bench.devices import Register
from shardio.devices import Uart16550

BASE, STRIDE, SIZE = 0x1_0000_0000, 0x2000, 0x1000
FAR_AWAY = BASE + STRIDE * 100_000
LSR, THR = 5, 0
BYTES, ROUNDS = 1000, 500
"""A round's bytes are fewer than gather in a turn of the loop."""


def again(bus: MmioBus[int], _where: Any) -> None:
    bus.register(MmioRange(FAR_AWAY, SIZE), 0)
    bus.deregister(FAR_AWAY)


def move_there_and_back(bus: MmioBus[int], _where: Any) -> None:
    bus.move(BASE, FAR_AWAY)
    bus.move(FAR_AWAY, BASE)


ACTS: dict[str, Callable[[MmioBus[int], Any], object]] = {
    "look up": lambda bus, where: bus.device(MmioAddress(next(where) + 8)),
    "miss": lambda bus, where: bus.device(MmioAddress(next(where) + SIZE + 8)),
    "register and deregister": again,
    "move there and back": move_there_and_back,
}


@pytest.mark.parametrize("count", [1, 10, 100, 1000, 10_000])
@pytest.mark.parametrize("act", ACTS)
def test_bus(benchmark: Any, act: str, count: int) -> None:
    """Ranges with a gap after each; look-ups at random."""
    bus: MmioBus[int] = MmioBus()
    for number in range(count):
        bus.register(MmioRange(BASE + number * STRIDE, SIZE), number)
    chosen = random.Random(1).choices(range(count), k=4096)

    found = benchmark(ACTS[act], bus, itertools.cycle([BASE + number * STRIDE for number in chosen]))

    assert (found is not None) is (act == "look up")
    assert len(bus) == count


def printed(device: Any) -> None:
    """Prints as a polling driver does: a byte is a read of LSR and a write of THR."""
    for _ in range(BYTES):
        device.read(LSR, 1)
        device.write(THR, 1, 65)


def test_uart(benchmark: Any) -> None:
    loop, device = asyncio.new_event_loop(), Uart16550(output="null")
    device.attach(SimpleNamespace(name="uart", loop=loop, trigger=None))

    def turn() -> None:
        """A turn of the loop, whose first byte is printed at once."""
        loop.run_until_complete(asyncio.sleep(0))
        device.write(THR, 1, 65)

    benchmark.pedantic(printed, args=(device,), setup=turn, rounds=ROUNDS)
    sent = device.statistics().sent
    device.detach()
    loop.close()

    assert sent > 0 == sent % (BYTES + 1)


def test_shortest_handler(benchmark: Any) -> None:
    device = Register()

    benchmark.pedantic(printed, args=(device,), rounds=ROUNDS)

    assert device.value == 65
