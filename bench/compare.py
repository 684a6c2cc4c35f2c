"""Two runs side by side, with a verdict only where their medians differ by more than their noise."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from enum import StrEnum

import msgspec
from rich.table import Table

from shardio.bench.errors import BenchError
from shardio.bench.results import Point, Run
from shardio.bench.tables import number

LEAST = 0.03
"""A difference below this part is never one, however quiet the rounds were."""


class Verdict(StrEnum):
    """Of the second run. Lower is better for a ratio or a time; higher for a rate."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "within noise"


class Difference(msgspec.Struct, frozen=True):
    """One figure that both runs have. `change`: the part by which the second is higher; `noise`: what
    counts as none.
    """

    title: str
    before: float
    after: float
    change: float
    noise: float
    verdict: Verdict


def compare(before: Run, after: Run) -> list[Difference]:
    """Every figure and point that both runs have, in the order of the first. Raises `BenchError` where
    there is none.
    """
    found = [*_figures(before, after), *_points(before, after)]
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

    >>> judge("", 1.0, 1.5, 0.1, higher_is_better=False).verdict.value
    'slower'
    >>> judge("", 1.0, 1.05, 0.1, higher_is_better=False).verdict.value
    'within noise'
    """
    change, allowed = after / before - 1, max(LEAST, noise)
    verdict = Verdict.FASTER if (change > 0) is higher_is_better else Verdict.SLOWER
    if abs(change) <= allowed:
        verdict = Verdict.SAME
    return Difference(title, before, after, change, allowed, verdict)


def _figures(before: Run, after: Run) -> Iterator[Difference]:
    for ours, theirs in ((before.rows, after.rows), (before.kvm, after.kvm), (before.peers, after.peers)):
        later = {figure.name: figure for figure in theirs}
        for one in ours:
            if other := later.get(one.name):
                allowed = noise(one.rounds) + noise(other.rounds)
                yield judge(one.title, one.value, other.value, allowed, higher_is_better=False)


def _points(before: Run, after: Run) -> Iterator[Difference]:
    later = {_what(point): point for point in after.scaling}
    for one in before.scaling:
        if other := later.get(_what(one)):
            allowed = (one.spread + other.spread) / 2
            yield judge(_what(one), one.rate, other.rate, allowed, higher_is_better=True)


def _what(point: Point) -> str:
    served = f"{point.shards} shards" if point.shards else "one process"
    what = f"{point.vcpus} vCPUs, {served}, {point.devices} devices"
    return f"{what}, {point.handler_ns / 1000:g} us: accesses/s"


def table(differences: Iterable[Difference]) -> Table:
    """For a terminal."""
    colours = {Verdict.FASTER: "[green]", Verdict.SLOWER: "[red]", Verdict.SAME: ""}
    result = Table(box=None, pad_edge=False, header_style="bold")
    result.add_column("figure", overflow="fold")
    for name in ("before", "after", "change", "noise"):
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("")
    for row in differences:
        numbers = number(row.before), number(row.after), f"{row.change:+.1%}", f"{row.noise:.1%}"
        result.add_row(row.title, *numbers, colours[row.verdict] + row.verdict)
    return result
