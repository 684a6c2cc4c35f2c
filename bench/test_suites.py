"""Every step of every suite of `shardio bench`: rows of the data path, exits, peers, scaling and start-up.
Each row is held to its gate, each bound to the points where it is valid.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shardio.bench import bound, host, scaling, start_up, suites
from shardio.bench.conftest import Keep
from shardio.bench.effort import Effort
from shardio.bench.results import Figure, Run
from shardio.errors import ShardioError

GRIDS = [scaling.Grid((1, 100, 10_000), (1, 2, 4), (1, 2, 4), (ns,)) for ns in (0, 1000, 10_000)]


TITLES = [step.title for step in suites.figures((0, 0))]


@pytest.mark.parametrize("number", range(len(TITLES)), ids=TITLES)
def test_figure(keep: Keep, cpus: tuple[int, int], effort: Effort, number: int) -> None:
    step = suites.figures(cpus)[number]
    try:
        figures = keep(lambda: [each for each in step.measure(effort) if isinstance(each, Figure)])
    except (ShardioError, OSError) as error:
        pytest.skip(str(error))

    assert all(figure.value > 0 for figure in figures)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.handlers[0]} ns")
def test_grid(benchmark: Any, effort: Effort, grid: scaling.Grid) -> None:
    points = benchmark.pedantic(lambda: list(scaling.measure(grid, effort)), rounds=1)

    benchmark.extra_info["points"] = msgspec.to_builtins(points)
    checks = bound.check(Run(host=host.describe(None, spread=True), scaling=points))
    assert len(points) == grid.points
    assert [each for each in checks if each.bound.valid and abs(each.error) > 0.25] == []


def test_start_up_and_memory(benchmark: Any, effort: Effort) -> None:
    try:
        costs = benchmark.pedantic(lambda: list(start_up.measure(effort)), rounds=1)
    except (ShardioError, OSError) as error:
        pytest.skip(str(error))

    benchmark.extra_info["costs"] = msgspec.to_builtins(costs)
    assert next(cost for cost in costs if f"{start_up.MANY:,}" in cost.title).value < 2000
