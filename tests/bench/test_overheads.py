"""The rows that tell what a trace and a scraper cost."""

from __future__ import annotations

import os
import platform

import pytest

from shardio.bench import overheads
from shardio.bench.effort import Effort

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
TINY = Effort(rounds=1, seconds=0.01, n=256)


def test_a_trace_is_measured_off_and_on() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    off, on = overheads.trace((cpus[0], cpus[1]), TINY)

    assert (off.name, on.name) == ("trace-off", "traced")
    assert min(off.value, on.value) > 0
    assert on.floor is not None


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86-64 has the trap flag")
def test_no_trace_costs_an_access_a_look_and_nothing_else() -> None:
    look = overheads.steps.of_the_check()

    assert look is not None
    assert 1 <= look <= 6  # a comparison with memory and a branch, and what the compiler moved for them


def test_a_scraper_is_measured_and_the_cpus_come_back() -> None:
    before = os.sched_getaffinity(0)
    (figure,) = overheads.metrics((min(before), max(before)), TINY)

    assert figure.name == "scraped"
    assert figure.value > 0
    assert os.sched_getaffinity(0) == before


def test_a_scrape_that_is_refused_is_no_figure(tmp_path: object) -> None:
    with pytest.raises(OSError, match="No such file"):
        overheads._scrape(f"{tmp_path}/nobody")
