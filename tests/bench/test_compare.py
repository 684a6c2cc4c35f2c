"""A verdict only where runs differ by more than their noise."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from shardio.bench.compare import compare, noise, preamble, together
from shardio.bench.errors import BenchError
from shardio.bench.results import Figure, Percentiles, Point, Run, Unit
from tests.bench.test_results import HOST

QUIET = [1.0, 1.0, 1.01, 0.99, 1.0]
NOISY = [1.0, 2.0, 0.5, 1.4, 0.7]


def run_of(value: float, rounds: list[float]) -> Run:
    return Run(host=HOST, rows=[Figure("native", "native", Unit.FLOOR, value, rounds)])


def point_run(rate: float, spread: float) -> Run:
    return Run(host=HOST, scaling=[Point(1, 1, 1, 0, rate, spread, Percentiles(1, 2, 3), False)])


@pytest.mark.parametrize(
    ("after", "verdict"), [(1.2, "slower"), (0.8, "faster"), (1.01, "within noise")]
)
def test_quiet_figures_are_judged(after: float, verdict: str) -> None:
    found = compare(run_of(1.0, QUIET), run_of(after, [after] * 5))

    assert [row.verdict for row in found] == [verdict]


def test_a_noisy_figure_is_not_judged() -> None:
    found = compare(run_of(1.0, NOISY), run_of(1.2, NOISY))

    assert found[0].verdict == "within noise"


@pytest.mark.parametrize(
    ("rate", "verdict"), [(2e6, "faster"), (5e5, "slower"), (1.02e6, "within noise")]
)
def test_a_higher_rate_is_better(rate: float, verdict: str) -> None:
    found = compare(point_run(1e6, 0.05), point_run(rate, 0.05))

    assert [row.verdict for row in found] == [verdict]


def test_figures_of_one_run_alone_are_left_out() -> None:
    other = msgspec.structs.replace(run_of(1.0, QUIET), rows=[])

    with pytest.raises(BenchError, match="no figure in common"):
        compare(run_of(1.0, QUIET), other)


def test_another_machine_is_said() -> None:
    run = run_of(1.0, QUIET)
    other = msgspec.structs.replace(run, host=msgspec.structs.replace(HOST, machine="another one"))

    assert len(preamble([run, run])) == 2
    assert "a machine, 2 CPUs, CPython 3.11 against another one" in preamble([run, other])[2]


def test_noise_of_equal_rounds_is_none() -> None:
    assert noise([3.0, 3.0, 3.0]) == 0.0


def test_several_runs_are_one_table_that_says_where_gates_were_missed() -> None:
    runs = [run_of(value, QUIET) for value in (1.0, 1.3, 1.2)]
    for run in runs:
        (row,) = run.rows
        run.rows[0] = msgspec.structs.replace(row, reach=1.1, gate=1.25, beyond=10 * row.value)
    out = io.StringIO()

    Console(file=out, width=120).print(together(runs))

    cells = [cell.strip() for cell in out.getvalue().strip().splitlines()[-1].strip("|").split("|")]
    assert cells == ["native", "1.10", "1.25", "1.20", "1.00-1.30", "x floor", "10.0-13.0", "missed in 1"]


def test_several_runs_without_a_figure_in_common_are_refused() -> None:
    with pytest.raises(BenchError, match="the 3 runs have no figure in common"):
        together([run_of(1.0, QUIET), Run(host=HOST), point_run(1e6, 0.1)])
