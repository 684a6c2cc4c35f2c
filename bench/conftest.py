"""What the suites share: the two CPUs, how much to measure, and ways to keep a paired figure.

A missed gate fails its test and no other; the figures of all tests are in one table at the end.
"""

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
    """The table of all figures, and the gates that were missed."""
    if not _FIGURES:
        return
    terminalreporter.section("paired figures")
    console = Console(file=terminalreporter._tw._file, width=tables.WIDE, highlight=False)
    console.print(tables.figures(_FIGURES, ""))
    missed = [figure.title for figure in _FIGURES if figure.verdict == "missed"]
    console.print(f"gates missed: {'; '.join(missed) or 'none'}")


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
    """Measures figures once and keeps them as the benchmark's `extra_info`; its own time is that
    of the whole measurement. Fails for a missed gate, when all is kept."""

    def measured(figures: Callable[[], Iterable[Figure]]) -> list[Figure]:
        found: list[Figure] = benchmark.pedantic(lambda: list(figures()), rounds=1, iterations=1)
        _keep(benchmark, found)
        missed = [
            f"{figure.title}: {figure.value:.3f} {figure.unit}, gate {figure.gate}"
            for figure in found
            if figure.verdict == "missed"
        ]
        assert not missed
        return found

    return measured


def _keep(benchmark: Any, figures: list[Figure]) -> None:
    benchmark.extra_info["figures"] = msgspec.to_builtins(figures)
    benchmark.extra_info["host"] = msgspec.to_builtins(describe(None, spread=True))
    _FIGURES.extend(figures)
