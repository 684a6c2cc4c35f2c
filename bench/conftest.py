"""What the suites share: the two CPUs, how much to measure, and a table of paired figures at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from rich.console import Console

from shardio.bench import tables
from shardio.bench.effort import Effort
from shardio.bench.errors import BenchError
from shardio.bench.host import describe, two_cpus
from shardio.bench.results import Figure

Keep = Callable[[Callable[[], Iterable[Figure]]], list[Figure]]
_FIGURES: list[Figure] = []


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of all figures."""
    if _FIGURES:
        terminalreporter.section("paired figures")
        console = Console(file=terminalreporter._tw._file, width=tables.WIDE, highlight=False, markup=False)
        console.print(tables.figures(_FIGURES, ""))


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


@pytest.fixture(scope="session")
def brief() -> Effort:
    """Five shorter rounds, where there are many figures."""
    return Effort(seconds=0.2)


@pytest.fixture
def keep(benchmark: Any) -> Keep:
    """Measures figures once and keeps them as the benchmark's `extra_info`; its own time is that of the whole
    measurement.
    """

    def measured(figures: Callable[[], Iterable[Figure]]) -> list[Figure]:
        found: list[Figure] = benchmark.pedantic(lambda: list(figures()), rounds=1, iterations=1)
        kept = {"figures": found, "host": describe(None, spread=True)}
        benchmark.extra_info.update(msgspec.to_builtins(kept))
        _FIGURES.extend(found)
        return found

    return measured
