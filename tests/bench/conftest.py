"""What the tests of the benchmarks share."""

from __future__ import annotations

import pytest

from tests.bench.support import start_what_multiprocessing_keeps


@pytest.fixture(scope="session", autouse=True)
def what_multiprocessing_keeps() -> None:
    """Made before a test counts."""
    start_what_multiprocessing_keeps()
