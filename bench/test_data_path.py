"""The data path's table: mailbox, posted ring, handlers, routing; each row held to its gate."""

from __future__ import annotations

import pytest

from shardio.bench.conftest import Keep
from shardio.bench.effort import Effort
from shardio.bench.rows import ROWS, Row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(keep: Keep, row: Row, cpus: tuple[int, int], effort: Effort) -> None:
    assert keep(lambda: row.measure(cpus, effort))
