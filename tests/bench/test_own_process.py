"""The software CPU's other end of the scale: a guest's `IN` answered in the same process."""

from __future__ import annotations

import pytest

from shardio.bench.effort import Effort
from shardio.bench.exits import GUESTS, QUICK, Case
from shardio.bench.inloop import OwnProcess

pytest.importorskip("unicorn")
CASES = [case for case in QUICK if case.cpu == "soft"]


def test_the_loop_goes_on() -> None:
    with OwnProcess(GUESTS["pio-in"].code()) as loop:
        assert 0 < loop.exit_ns() < 1_000_000


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_device_in_a_shard_is_held_against_it(case: Case) -> None:
    (figure,) = case.measure(Effort(rounds=1, seconds=0.001))

    assert figure.value > 1
    assert "a second" in figure.note
