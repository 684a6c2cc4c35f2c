"""Two runs side by side, with a verdict only where their medians differ by more than their noise."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from enum import StrEnum

import msgspec
from rich.table import Table

from shardio.bench.errors import BenchError
from shardio.bench.results import Figure, Run
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

    name: str
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
    lines = [
        f"{name}: shardio {run.host.shardio} {run.host.commit}, {run.host.when}, load {run.host.load:.1f}"
        for name, run in (("before", before), ("after", after))
    ]
    ours, theirs = ((run.host.machine, run.host.usable_cpus, run.host.python) for run in (before, after))
    if ours != theirs:
        lines.append(f"caution: {_place(ours)} against {_place(theirs)}: the machine may be the difference")
    return lines


def _place(facts: tuple[str, int, str]) -> str:
    machine, cpus, python = facts
    return f"{machine}, {cpus} CPUs, {python}"


def noise(rounds: Iterable[float]) -> float:
    """How far the median of some rounds may be off, as a part of it: their median distance from it, made
    comparable to a standard deviation, over the root of their number, doubled.
    """
    values = list(rounds)
    middle = statistics.median(values)
    spread = statistics.median(abs(value - middle) for value in values) * 1.4826
    return 2 * spread / len(values) ** 0.5 / middle if middle else 0.0


def judge(before: float, after: float, allowed: float, *, higher_is_better: bool) -> tuple[float, Verdict]:
    """The change, and what it means.

    >>> judge(1.0, 1.5, 0.1, higher_is_better=False)
    (0.5, <Verdict.SLOWER: 'slower'>)
    >>> judge(1.0, 1.05, 0.1, higher_is_better=False)[1].value
    'within noise'
    """
    change = after / before - 1
    if abs(change) <= allowed:
        return change, Verdict.SAME
    return change, Verdict.FASTER if (change > 0) is higher_is_better else Verdict.SLOWER


def _figures(before: Run, after: Run) -> Iterator[Difference]:
    for kind in ("rows", "kvm", "peers"):
        later: dict[str, Figure] = {figure.name: figure for figure in getattr(after, kind)}
        for figure in getattr(before, kind):
            other = later.get(figure.name)
            if other is None:
                continue
            allowed = max(LEAST, noise(figure.rounds) + noise(other.rounds))
            change, verdict = judge(figure.value, other.value, allowed, higher_is_better=False)
            yield Difference(figure.name, figure.title, figure.value, other.value, change, allowed, verdict)


def _points(before: Run, after: Run) -> Iterator[Difference]:
    later = {(p.devices, p.vcpus, p.shards, p.handler_ns): p for p in after.scaling}
    for point in before.scaling:
        other = later.get((point.devices, point.vcpus, point.shards, point.handler_ns))
        if other is None:
            continue
        allowed = max(LEAST, (point.spread + other.spread) / 2)
        change, verdict = judge(point.rate, other.rate, allowed, higher_is_better=True)
        served = f"{point.shards} shards" if point.shards else "one process"
        what = f"{point.vcpus} vCPUs, {served}, {point.devices} devices"
        title = f"{what}, {point.handler_ns / 1000:g} us: accesses/s"
        yield Difference(title, title, point.rate, other.rate, change, allowed, verdict)


def table(differences: Iterable[Difference]) -> Table:
    """For a terminal."""
    colours = {Verdict.FASTER: "green", Verdict.SLOWER: "red", Verdict.SAME: ""}
    result = Table(box=None, pad_edge=False, header_style="bold")
    result.add_column("figure", overflow="fold")
    for name in ("before", "after", "change", "noise"):
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("")
    for row in differences:
        style = colours[row.verdict]
        result.add_row(
            row.title,
            number(row.before),
            number(row.after),
            f"{row.change:+.1%}",
            f"{row.noise:.1%}",
            f"[{style}]{row.verdict}[/]" if style else str(row.verdict),
        )
    return result
