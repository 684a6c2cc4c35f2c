"""In-process bus: look-ups that hit and miss, registration and moves among 1 to 10,000 ranges."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from shardio import MmioAddress, MmioBus, MmioRange

BASE, STRIDE, SIZE = 0x1_0000_0000, 0x2000, 0x1000
FAR_AWAY = BASE + STRIDE * 100_000
Act = Callable[[MmioBus[int], Any], object]


def look_up(bus: MmioBus[int], where: Any) -> object:
    return bus.device(MmioAddress(next(where) + 8))


def miss(bus: MmioBus[int], where: Any) -> object:
    return bus.device(MmioAddress(next(where) + SIZE + 8))


def register_and_deregister(bus: MmioBus[int], _where: Any) -> object:
    bus.register(MmioRange(FAR_AWAY, SIZE), 0)
    return bus.deregister(FAR_AWAY)


def move_there_and_back(bus: MmioBus[int], _where: Any) -> object:
    bus.move(BASE, FAR_AWAY)
    return bus.move(FAR_AWAY, BASE)


@pytest.mark.parametrize("count", [1, 10, 100, 1000, 10_000])
@pytest.mark.parametrize("act", [look_up, miss, register_and_deregister, move_there_and_back])
def test_bus(benchmark: Any, act: Act, count: int) -> None:
    """Ranges with a gap after each; look-ups at random."""
    bus: MmioBus[int] = MmioBus()
    for number in range(count):
        bus.register(MmioRange(BASE + number * STRIDE, SIZE), number)
    chosen = random.Random(1).choices(range(count), k=4096)

    found = benchmark(act, bus, itertools.cycle([BASE + number * STRIDE for number in chosen]))

    assert (found is None) is (act is miss)
    assert len(bus) == count
