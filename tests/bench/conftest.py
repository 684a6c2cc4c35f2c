"""What the tests of the benchmarks share."""

from __future__ import annotations

from multiprocessing import resource_tracker

import pytest

from shardio.bench.peers.peer import context


@pytest.fixture(scope="session", autouse=True)
def what_multiprocessing_keeps() -> None:
    """Its resource tracker and its arenas of memory stay until the program ends: made before the counting."""
    resource_tracker.ensure_running()
    arrays = [context.RawArray("B", size) for size in (4096, 70_000, 70_000, 70_000)]
    del arrays
