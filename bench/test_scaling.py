"""vCPUs x shards x devices x handler cost, beside the single process; and what starting takes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shardio.bench import scaling, start_up
from shardio.bench.effort import Effort
from shardio.errors import HostError, KvmError


@pytest.mark.parametrize("handler_ns", [0, 1000, 10_000])
def test_grid(benchmark: Any, effort: Effort, handler_ns: int) -> None:
    grid = scaling.Grid(devices=(1, 100, 10_000), vcpus=(1, 2, 4), shards=(1, 2, 4), handlers=(handler_ns,))

    points = benchmark.pedantic(lambda: list(scaling.measure(grid, effort)), rounds=1)

    benchmark.extra_info["points"] = msgspec.to_builtins(points)
    assert len(points) == grid.points
    assert all(point.rate > 0 for point in points)


def test_start_up_and_memory(benchmark: Any, effort: Effort) -> None:
    try:
        costs = benchmark.pedantic(lambda: list(start_up.measure(effort)), rounds=1)
    except (HostError, KvmError) as error:
        pytest.skip(str(error))

    benchmark.extra_info["costs"] = msgspec.to_builtins(costs)
    many = next(cost for cost in costs if f"{start_up.MANY:,}" in cost.title)
    assert many.value < 2000
