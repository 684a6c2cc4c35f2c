"""What the suites share: the two CPUs, how much to measure, and a way to keep a paired figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest

from shardio.bench.effort import Effort
from shardio.bench.errors import BenchError
from shardio.bench.host import describe, two_cpus
from shardio.bench.results import Figure

Keep = Callable[[Callable[[], Iterable[Figure]]], list[Figure]]


@pytest.fixture(scope="session")
def cpus() -> tuple[int, int]:
    """The CPUs of the near and the far process; without two of them nothing here means anything."""
    try:
        return two_cpus()
    except BenchError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def effort() -> Effort:
    """Five rounds, as everywhere."""
    return Effort()


@pytest.fixture
def keep(benchmark: Any) -> Keep:
    """Measures figures once and keeps them as the benchmark's `extra_info`; its own time is that
    of the whole measurement."""

    def measured(figures: Callable[[], Iterable[Figure]]) -> list[Figure]:
        found = benchmark.pedantic(lambda: list(figures()), rounds=1, iterations=1)
        benchmark.extra_info["figures"] = msgspec.to_builtins(found)
        benchmark.extra_info["host"] = msgspec.to_builtins(describe(None, spread=True))
        return found

    return measured
