"""The backend of the interrupt tests: it records."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shardio.interrupt import RecordingBackend


@pytest.fixture
def backend() -> Iterator[RecordingBackend]:
    with RecordingBackend() as backend:
        yield backend
