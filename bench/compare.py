"""Two runs side by side, with a verdict only where their medians differ by more than their noise; or several,
which are one table.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from rich.box import MARKDOWN
from rich.table import Table
from rich.text import Text

from shardio.bench.errors import BenchError
from shardio.bench.results import Run
from shardio.bench.tables import gate, made, number, span

LEAST = 0.03
"""A difference below this part is never one, however quiet the rounds were."""
COLOURS = {"faster": "green", "slower": "red"}


class Difference(NamedTuple):
    """One figure that both runs have. `change`: the part by which the second is higher; `noise`: what
    counts as none; `verdict`: of the second run, "faster", "slower" or "within noise".
    """

    title: str
    before: float
    after: float
    change: float
    noise: float
    verdict: str


def compare(before: Run, after: Run) -> list[Difference]:
    """Every figure and point that both runs have, in the order of the first. Raises `BenchError` where
    there is none.
    """
    found = list(_differences(before, after))
    if not found:
        raise _nothing(2)
    return found


def preamble(runs: Sequence[Run]) -> list[str]:
    """Which runs they are, and whether they may be compared at all."""
    names = ("before", "after") if len(runs) == 2 else range(1, len(runs) + 1)
    lines = [
        f"{name}: shardio {run.host.shardio} {run.host.commit}, {run.host.when}, load {run.host.load:.1f}"
        for name, run in zip(names, runs, strict=True)
    ]
    places = {f"{run.host.machine}, {run.host.usable_cpus} CPUs, {run.host.python}": None for run in runs}
    if len(places) > 1:
        lines.append(f"caution: {' against '.join(places)}: the machine may be the difference")
    return lines


def together(runs: Sequence[Run]) -> Table:
    """Each figure that all runs have, in Markdown: its median, from the least to the most, and how often it
    missed its gate. Raises `BenchError` where there is none.
    """
    table = Table("work", "reach", "gate", "median", f"{len(runs)} runs", "of", "ns beyond", "", box=MARKDOWN)
    for one in runs[0].figures:
        same = [figure for run in runs for figure in run.figures if figure.name == one.name]
        if len(same) == len(runs):
            missed = sum(each.verdict == "missed" for each in same)
            values, beyond = [each.value for each in same], [each.beyond for each in same]
            table.add_row(
                one.title, number(one.reach), gate(one), number(statistics.median(values)), span(values),
                one.unit, span(beyond), f"missed in {missed}" if missed else "",
            )  # fmt: skip
    for point in runs[0].scaling:
        rates = [each.rate for run in runs for each in run.scaling if each.title == point.title]
        if len(rates) == len(runs):
            table.add_row(point.title, "-", "-", number(statistics.median(rates)), span(rates))
    if not table.row_count:
        raise _nothing(len(runs))
    return table


def _nothing(runs: int) -> BenchError:
    return BenchError(
        f"the {'two' if runs == 2 else runs} runs have no figure in common", "compare runs of the same suite"
    )


def noise(rounds: Iterable[float]) -> float:
    """How far the median of some rounds may be off, as a part of it: their median distance from it, made
    comparable to a standard deviation, over the root of their number, doubled.
    """
    values = list(rounds)
    middle = statistics.median(values)
    spread = statistics.median(abs(value - middle) for value in values) * 1.4826
    return 2 * spread / len(values) ** 0.5 / middle if middle else 0.0


def judge(title: str, before: float, after: float, noise: float, *, higher_is_better: bool) -> Difference:
    """The change, and what it means.

    >>> judge("", 1.0, 1.5, 0.1, higher_is_better=False).verdict
    'slower'
    >>> judge("", 1.0, 1.05, 0.1, higher_is_better=False).verdict
    'within noise'
    """
    change, allowed = after / before - 1, max(LEAST, noise)
    verdict = "faster" if (change > 0) is higher_is_better else "slower"
    verdict = verdict if abs(change) > allowed else "within noise"
    return Difference(title, before, after, change, allowed, verdict)


def _differences(before: Run, after: Run) -> Iterator[Difference]:
    later = {figure.name: figure for figure in after.figures}
    for one in before.figures:
        if other := later.get(one.name):
            allowed = noise(one.rounds) + noise(other.rounds)
            yield judge(one.title, one.value, other.value, allowed, higher_is_better=False)
    points = {point.title: point for point in after.scaling}
    for point in before.scaling:
        if same := points.get(point.title):
            allowed = (point.spread + same.spread) / 2
            yield judge(point.title, point.rate, same.rate, allowed, higher_is_better=True)


def table(differences: Iterable[Difference]) -> Table:
    """For a terminal."""
    result = made("", "figure", "before", "after", "change", "noise")
    for row in differences:
        verdict = Text(row.verdict, COLOURS.get(row.verdict, "default"))
        numbers = number(row.before), number(row.after), f"{row.change:+.1%}", f"{row.noise:.1%}"
        result.add_row(row.title, *numbers, verdict)
    return result
