"""String I/O: a whole `rep outs` or `rep ins` in one exchange, by its length and the form of the handler.
Asked from Python, in floors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from shardio.bench.conftest import Keep
from shardio.bench.effort import Effort
from shardio.bench.pair import Handlers, Pair, Setting
from shardio.bench.results import Figure, Rounds, Unit
from shardio.fabric import Outcome, Port

BASE, MMIO = 0xD000_0000, 1
CALLS = 64
Exchange = Callable[[], Outcome]


def write(client: Port, length: int) -> Exchange:
    data = bytes(length)
    return lambda: client.write_string(MMIO, BASE, 1, data)


def read(client: Port, length: int) -> Exchange:
    return lambda: client.read_string(MMIO, BASE, 1, length)[0]


def measure(
    make: Callable[[Port, int], Exchange], device: str, length: int, cpus: tuple[int, int], effort: Effort
) -> Iterator[Figure]:
    """Blocks of strings, and blocks of the floor."""
    setting, rounds = Setting([Handlers(0, MMIO, BASE, 0x1000, device)]), Rounds()
    with Pair([setting], cpus) as pair:
        exchange = make(setting.client(), length)
        for _ in effort.pairs(rounds):
            floor = pair.floor(effort.n)
            began = time.perf_counter_ns()
            outcomes = {exchange() for _ in range(CALLS)}
            took = (time.perf_counter_ns() - began) / CALLS
            assert outcomes == {Outcome.ANSWERED}
            rounds.add(took, floor)
    name = f"{make.__name__} a string of {length} bytes, {device} handler"
    yield rounds.figure(name, name, Unit.FLOOR)


@pytest.mark.parametrize("make", [write, read])
@pytest.mark.parametrize("device", ["native", "register", "view"])
@pytest.mark.parametrize("length", [1, 64, 4096])
def test_string(
    keep: Keep,
    cpus: tuple[int, int],
    brief: Effort,
    make: Callable[[Port, int], Exchange],
    device: str,
    length: int,
) -> None:
    assert keep(lambda: measure(make, device, length, cpus, brief))[0].value > 1
