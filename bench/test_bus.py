"""In-process bus: look-ups that hit and miss, registration and moves among 1 to 10,000 ranges."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from shardio import MmioAddress, MmioBus, MmioRange

BASE, STRIDE, SIZE = 0x1_0000_0000, 0x2000, 0x1000
COUNTS = (1, 10, 100, 1000, 10_000)
FAR_AWAY = BASE + STRIDE * 100_000


def bus_of(count: int) -> MmioBus[int]:
    """Ranges with a gap after each."""
    bus: MmioBus[int] = MmioBus()
    for number in range(count):
        bus.register(MmioRange(BASE + number * STRIDE, SIZE), number)
    return bus


def addresses(count: int, offset: int) -> Any:
    """Endlessly, at random, `offset` bytes behind the base of some range."""
    chosen = random.Random(1).choices(range(count), k=4096)
    return itertools.cycle([MmioAddress(BASE + number * STRIDE + offset) for number in chosen])


@pytest.mark.parametrize("count", COUNTS)
def test_hit(benchmark: Any, count: int) -> None:
    bus, where = bus_of(count), addresses(count, 8)

    found = benchmark(lambda: bus.device(next(where)))

    assert found is not None


@pytest.mark.parametrize("count", COUNTS)
def test_miss(benchmark: Any, count: int) -> None:
    bus, where = bus_of(count), addresses(count, SIZE + 8)

    found = benchmark(lambda: bus.device(next(where)))

    assert found is None


@pytest.mark.parametrize("count", COUNTS)
def test_register_and_deregister(benchmark: Any, count: int) -> None:
    bus = bus_of(count)

    def both() -> object:
        bus.register(MmioRange(FAR_AWAY, SIZE), 0)
        return bus.deregister(FAR_AWAY)

    gone = benchmark(both)

    assert gone is not None
    assert len(bus) == count


@pytest.mark.parametrize("count", COUNTS)
def test_move_there_and_back(benchmark: Any, count: int) -> None:
    bus = bus_of(count)

    def both() -> object:
        bus.move(BASE, FAR_AWAY)
        return bus.move(FAR_AWAY, BASE)

    benchmark(both)

    assert bus.device(BASE) is not None
