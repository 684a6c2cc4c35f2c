"""The bound against points that are measured here. What `shardio bench` measures, it measures: `make bench`
runs it too.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shardio.bench import bound, host, scaling
from shardio.bench.effort import Effort
from shardio.bench.results import Run

GRIDS = [scaling.Grid((1, 100, 10_000), (1, 2, 4), (1, 2, 4), (ns,)) for ns in (0, 1000, 10_000)]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.handlers[0]} ns")
def test_grid(benchmark: Any, effort: Effort, grid: scaling.Grid) -> None:
    points = benchmark.pedantic(lambda: list(scaling.measure(grid, effort)), rounds=1)

    benchmark.extra_info["points"] = msgspec.to_builtins(points)
    checks = bound.check(Run(host=host.describe(None, spread=True), scaling=points))
    assert len(points) == grid.points
    assert [each for each in checks if each.bound.valid and abs(each.error) > 0.25] == []
