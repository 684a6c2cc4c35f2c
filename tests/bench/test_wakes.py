"""Wake-ups against a bare process: the figures are of rounds that happened. None is judged."""

from __future__ import annotations

import pytest

from shardio.bench.effort import Effort
from shardio.bench.results import Unit
from shardio.bench.wakes import CASES, Case

pytestmark = pytest.mark.kvm


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_sides_answer(case: Case) -> None:
    [figure] = case.measure(Effort(rounds=1, seconds=0.0))

    assert (figure.name, figure.unit) == (case.name, Unit.BARE)
    assert figure.value > 0
    assert figure.operation > 0
