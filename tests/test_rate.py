"""`shardio.rate`: a guest cannot fill the host's log."""

from __future__ import annotations

import logging

import pytest

from shardio.rate import LogLimit

log = logging.getLogger("shardio.test")


def test_a_flood_is_cut_and_the_next_line_says_how_much(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    limit = LogLimit(burst=3, per_second=1.0, clock=lambda: now[0])
    for number in range(1000):
        limit.warning(log, "fault %d", number)
    now[0] = 1.0
    limit.warning(log, "later")

    assert caplog.messages == [
        "fault 0",
        "fault 1",
        "fault 2",
        "997 warnings that a guest caused were held back",
        "later",
    ]
    assert limit.suppressed == 997


def test_the_allowance_comes_back_up_to_the_burst() -> None:
    now = [0.0]
    limit = LogLimit(burst=2, per_second=0.5, clock=lambda: now[0])
    first = [limit.admits() for _ in range(3)]
    now[0] = 1000.0

    assert first == [True, True, False]
    assert [limit.admits() for _ in range(3)] == [True, True, False]


def test_a_line_that_passes_is_passed_on_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    LogLimit().warning(log, "slot %d: %s", 3, "outside")

    assert caplog.messages == ["slot 3: outside"]
