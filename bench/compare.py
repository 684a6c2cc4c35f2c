"""Two runs side by side, with a verdict only where their medians differ by more than their noise."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rich.table import Table

from shardio.bench.errors import BenchError
from shardio.bench.results import Run
from shardio.bench.tables import made, number

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
        raise BenchError("the two runs have no figure in common", "compare runs of the same suite")
    return found


def preamble(before: Run, after: Run) -> list[str]:
    """Which runs they are, and whether they may be compared at all."""
    hosts = {"before": before.host, "after": after.host}
    lines = [
        f"{name}: shardio {h.shardio} {h.commit}, {h.when}, load {h.load:.1f}" for name, h in hosts.items()
    ]
    places = [f"{h.machine}, {h.usable_cpus} CPUs, {h.python}" for h in hosts.values()]
    if places[0] != places[1]:
        lines.append(f"caution: {places[0]} against {places[1]}: the machine may be the difference")
    return lines


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
        verdict = f"[{COLOURS.get(row.verdict, 'default')}]{row.verdict}[/]"
        numbers = number(row.before), number(row.after), f"{row.change:+.1%}", f"{row.noise:.1%}"
        result.add_row(row.title, *numbers, verdict)
    return result
