"""Guest RAM for the loaders' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shardio.memory import GuestMemory

SIZE = 4 << 20


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    """4 MiB, zeroed."""
    with GuestMemory(SIZE) as made:
        yield made
