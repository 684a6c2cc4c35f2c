"""Figures, percentiles and the files that hold them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.bench.blocks import Block, Floor
from shardio.bench.errors import BenchError
from shardio.bench.results import Figure, Host, Percentiles, Rounds, Run, Unit, load, merged, save

HOST = Host("a machine", 2, 2, (0, 1), "6.1", "CPython 3.11", "0.1.0", "abc", "today", 0.1, [])
FIGURE = Figure("native", "native handler", Unit.FLOOR, 1.2, [1.1, 1.2, 1.3], 1.1, 1.25)


def floor_of(pause: float, bare: float) -> Floor:
    return Floor(Block(pause, [pause], False), Block(bare, [bare], False))


@given(st.lists(st.floats(0, 1e9), min_size=1))
def test_percentiles_are_samples_in_order(samples: list[float]) -> None:
    found = Percentiles.of(samples)

    assert {found.p50, found.p99, found.p999} <= set(samples)
    assert found.p50 <= found.p99 <= found.p999


def test_a_figure_is_the_median_of_the_pairs_ratios() -> None:
    rounds = Rounds()
    for work, floor in ((10.0, 10.0), (200.0, 100.0), (90.0, 30.0)):
        rounds.begin()
        rounds.add(work, floor_of(floor, 2 * floor), latency=[work])

    figure = rounds.figure("x", "x", Unit.FLOOR)

    assert figure.value == 2.0
    assert figure.rounds == [1.0, 2.0, 3.0]
    assert figure.beyond == 60.0
    assert figure.latency == Percentiles(90.0, 200.0, 200.0)


@pytest.mark.parametrize(("pause", "bare"), [(62.0, 48.0), (48.0, 62.0)])
def test_the_floor_is_the_quicker_loop_and_both_are_kept(pause: float, bare: float) -> None:
    rounds = Rounds()
    rounds.begin()
    rounds.add(96.0, floor_of(pause, bare))

    figure = rounds.figure("x", "x", Unit.FLOOR)

    assert figure.value == 2.0
    assert figure.floors == (pause, bare)
    assert figure.beyond == 48.0


def test_a_python_handler_is_stated_beyond_the_floor_and_its_local_call() -> None:
    rounds = Rounds()
    rounds.begin()
    rounds.add(150.0, floor_of(50.0, 60.0), rest=65.0)

    figure = rounds.figure("x", "x", Unit.EXPECTED)

    assert figure.value == 150.0 / (1.2 * 50.0 + 65.0)
    assert figure.beyond == 35.0


@pytest.mark.parametrize(("value", "beyond", "verdict"), [(1.2, 20.0, "in gate"), (1.2, 26.0, "missed")])
def test_a_gate_in_nanoseconds_is_held_too(value: float, beyond: float, verdict: str) -> None:
    figure = Figure("x", "x", Unit.FLOOR, value, [value], 1.1, 1.25, beyond=beyond, gate_ns=25.0)

    assert figure.verdict == verdict


@pytest.mark.parametrize(("value", "verdict"), [(1.1, "reached"), (1.2, "in gate"), (1.3, "missed")])
def test_verdict_against_reach_and_gate(value: float, verdict: str) -> None:
    figure = Figure("x", "x", Unit.FLOOR, value, [value], 1.1, 1.25)

    assert figure.verdict == verdict


def test_a_row_without_a_gate_has_no_verdict() -> None:
    assert Figure("x", "x", Unit.FLOOR, 9.0, [9.0]).verdict == ""


def test_a_saved_run_is_read_back(tmp_path: Path) -> None:
    run = Run(host=HOST, seconds=3.0, rows=[FIGURE], skipped={"pyzmq": "is not installed"})

    save(run, tmp_path / "run.json")

    assert load(tmp_path / "run.json") == run


def test_a_file_that_is_no_run_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"rows": 3}')

    with pytest.raises(BenchError, match=r"other\.json is no benchmark run"):
        load(path)


def test_merged_keeps_what_either_run_has() -> None:
    rows = Run(host=HOST, seconds=1.0, rows=[FIGURE])
    peers = Run(host=HOST, seconds=2.0, peers=[FIGURE], interrupted=True)

    run = merged([rows, peers])

    assert (run.rows, run.peers, run.seconds, run.interrupted) == ([FIGURE], [FIGURE], 3.0, True)
