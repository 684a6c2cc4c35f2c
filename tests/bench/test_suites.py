"""Plans: what is done is kept, what cannot be done says why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shardio.bench.effort import MIN_PAIRS, Effort
from shardio.bench.errors import BenchError
from shardio.bench.peers.interpreter import VARIABLE
from shardio.bench.results import Figure, Rounds
from shardio.bench.suites import Plan, Step, figures
from tests.bench.test_results import FIGURE, HOST

EFFORT = Effort(rounds=2, seconds=0.001)


def gives(effort: Effort) -> Iterator[Figure]:
    effort.progress(0.5)
    yield FIGURE


def fails(_effort: Effort) -> Iterator[Figure]:
    raise BenchError("no KVM here", "load the module")
    yield FIGURE


def is_stopped(_effort: Effort) -> Iterator[Figure]:
    raise KeyboardInterrupt
    yield FIGURE


def test_a_step_that_cannot_be_done_is_named_and_the_next_one_is_done() -> None:
    plan = Plan(HOST, EFFORT, [Step("KVM", "rows", fails), Step("native", "rows", gives)])

    run = plan.run(lambda _title, _seconds: None)

    assert run.rows == [FIGURE]
    assert run.skipped == {"KVM": "no KVM here; load the module"}
    assert not run.interrupted


def test_ctrl_c_keeps_what_is_done() -> None:
    plan = Plan(
        HOST, EFFORT, [Step("a", "rows", gives), Step("b", "rows", is_stopped), Step("c", "rows", gives)]
    )

    run = plan.run(lambda _title, _seconds: None)

    assert run.rows == [FIGURE]
    assert run.interrupted


def test_progress_names_the_step() -> None:
    told: list[tuple[str, float]] = []

    Plan(HOST, EFFORT, [Step("native", "rows", gives)]).run(
        lambda title, seconds: told.append((title, seconds))
    )

    assert ("native", 0.5) in told


def test_every_round_has_pairs() -> None:
    rounds = Rounds()

    pairs = [rounds.add(1.0, rest=1.0) for _ in EFFORT.pairs(rounds)]

    assert len(pairs) >= EFFORT.rounds * MIN_PAIRS
    assert len(rounds.figure("x", "x", FIGURE.unit).rounds) == EFFORT.rounds


def test_a_peer_that_nobody_knows_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BenchError, match=r"carrier-pigeon.*use .*pipe"):
        figures((0, 1), "peers", ["carrier-pigeon"])


def test_a_wrong_python_stops_only_what_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere/python")

    assert figures((0, 1), "quick")
    with pytest.raises(BenchError, match="is no Python that runs"):
        figures((0, 1), "report")


def test_the_preamble_states_the_pinning() -> None:
    assert "pinned to CPUs 0 and 1" in HOST.place
