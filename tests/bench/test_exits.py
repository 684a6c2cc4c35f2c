"""Pacing: exits are counted over one block, or over more where other programs have the CPUs."""

from __future__ import annotations

import itertools

import pytest

from shardio.bench import exits
from shardio.bench.exits import LEAST_EXITS, paced


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "BLOCK_S", 0.0001)


def test_a_guest_that_is_rarely_given_a_cpu_is_timed_over_more_blocks() -> None:
    counts = itertools.count(step=LEAST_EXITS // 5)

    assert paced(lambda: next(counts)) > 0

    assert next(counts) == 6 * (LEAST_EXITS // 5)  # one look before, five blocks


def test_a_count_of_32_bits_may_wrap() -> None:
    counts = iter([(1 << 32) - 10, LEAST_EXITS])

    assert paced(lambda: next(counts)) > 0


def test_a_guest_that_stands_still_is_no_time() -> None:
    assert paced(lambda: 7) == 0.0
