"""String I/O: a whole `rep outs` or `rep ins` in one exchange, by its length and the form of the handler.
Asked from Python, in floors.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

from shardio.bench.conftest import Keep
from shardio.bench.effort import Effort
from shardio.bench.pair import Handlers, Pair, Setting
from shardio.bench.results import Figure, Rounds, Unit
from shardio.bench.rows import BASE, MMIO, PAGE
from shardio.fabric import Outcome

CALLS = 64


def measure(way: str, device: str, length: int, cpus: tuple[int, int], effort: Effort) -> Iterator[Figure]:
    """Blocks of strings, and blocks of the floor."""
    setting, rounds = Setting([Handlers(0, MMIO, BASE, PAGE, device)]), Rounds()
    with Pair([setting], cpus) as pair:
        client, data = setting.client(), bytes(length)
        read = partial(client.read_string, MMIO, BASE, 1, length)
        for _ in effort.pairs(rounds):
            floor = pair.floor(effort.n)
            began = time.perf_counter_ns()
            for _ in range(CALLS):
                outcome = read()[0] if way == "read" else client.write_string(MMIO, BASE, 1, data)
                assert outcome is Outcome.ANSWERED
            rounds.add((time.perf_counter_ns() - began) / CALLS, floor)
    name = f"{way} a string of {length} bytes, {device} handler"
    yield rounds.figure(name, name, Unit.FLOOR)


@pytest.mark.parametrize("way", ["write", "read"])
@pytest.mark.parametrize("device", ["native", "register", "view"])
@pytest.mark.parametrize("length", [1, 64, 4096])
def test_string(
    keep: Keep, cpus: tuple[int, int], brief: Effort, way: str, device: str, length: int
) -> None:
    assert keep(lambda: measure(way, device, length, cpus, brief))[0].value > 1
