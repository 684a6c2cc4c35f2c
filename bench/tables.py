"""Results as tables for a terminal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from rich.table import Table
from rich.text import Text

from shardio.bench.bound import check, summary
from shardio.bench.errors import BenchError
from shardio.bench.results import Figure, Percentiles, Run

_COLOURS = {"reached": "green", "in gate": "yellow", "missed": "red", "": ""}


WIDE, MEDIUM = 150, 100
"""Columns of the terminal from which on times are shown, and the rounds."""


def everything(run: Run, width: int = WIDE) -> list[Table | str]:
    """All that a run has, in reading order, for a terminal of so many columns."""
    shown: list[Table | str] = []
    for title, rows in (("data path", run.rows), ("peers", run.peers), ("KVM exits", run.kvm)):
        if rows:
            shown += [figures(rows, title, width), *(f"  {line}" for line in notes(rows)), ""]
    if run.scaling:
        shown += [*points(run), ""]
    if run.costs:
        costs = made("start-up and memory", "what", "value")
        for row in run.costs:
            costs.add_row(row.title, f"{row.value:,.2f} {row.unit}", row.note)
        shown += [costs, ""]
    for why in dict.fromkeys(run.skipped.values()):
        names = [name for name, reason in run.skipped.items() if reason == why]
        shown.append(f"not measured: {'; '.join(names)}: {why}")
    return shown + (["interrupted: what was complete is above"] if run.interrupted else [])


def figures(rows: Iterable[Figure], title: str, width: int = WIDE) -> Table:
    """Rows with what was to be reached, what was measured, by its ratio and by what is beyond, and in which
    regime. Times in nanoseconds.
    """
    rows = list(rows)
    gated = any(row.gate is not None for row in rows)
    counted = any(row.instructions is not None for row in rows)
    columns: list[tuple[str, Callable[[Figure], str], float]] = [
        ("reach", lambda row: number(row.reach), 0 if gated else math.inf),
        ("gate", gate, 0 if gated else math.inf),
        ("measured", lambda row: number(row.value), 0),
        ("rounds", lambda row: span(row.rounds), MEDIUM),
        ("of", lambda row: str(row.unit), 0),
        ("beyond, ns", lambda row: number(row.beyond), 0),
        ("instructions", lambda row: number(row.instructions), MEDIUM if counted else math.inf),
        ("one, ns", lambda row: f"{row.operation:.0f}", WIDE if gated else 0),
        ("p50/p99/p99.9", lambda row: percentiles(row.latency), WIDE),
        ("of the floor", lambda row: percentiles(row.floor), WIDE),
    ]
    shown = [(name, cell) for name, cell, least in columns if width >= least]
    table = made(title, "work", *(name for name, _ in shown))
    for column, (name, _) in zip(table.columns[1:], shown, strict=False):
        if name == "of":
            column.justify, column.no_wrap, column.overflow, column.min_width = "left", False, "fold", 12
    for row in rows:
        verdict = Text(row.verdict, _COLOURS[row.verdict]) if row.verdict else ""
        table.add_row(row.title, *(cell(row) for _, cell in shown), verdict)
    return table


def gate(row: Figure) -> str:
    """In the row's unit, and in nanoseconds beyond."""
    return number(row.gate) + (f", {row.gate_ns:.0f} ns" if row.gate_ns else "")


def notes(rows: Sequence[Figure]) -> list[str]:
    """What rows say beside their numbers, and the floor's two loops."""
    lines = [f"{row.title}: {row.note}" for row in rows if row.note]
    lines += [
        f"{row.title}: {row.set_aside:.0%} of the blocks measured again, another program had a CPU"
        for row in rows
        if row.set_aside >= 0.01
    ]
    floors = [row.floors for row in rows if row.floors is not None]
    if floors:
        pause, bare = (statistics.median(each) for each in zip(*floors, strict=True))
        loops = f"{pause:.0f} ns with a pause a poll, {bare:.0f} without"
        lines.append(f"the floor: {loops}; the lower one counts")
    return lines


def points(run: Run) -> list[Table | str]:
    """Scaling: accesses a second by what was varied, and at most by `bound`; "?" where that is not valid."""
    try:
        checks = check(run)
    except BenchError:  # without a point of one vCPU there is no bound
        checks = []
    bounds = {each.point.title: each.bound for each in checks}
    numbers = "devices", "vCPUs", "shards", "accesses/s", "at most", "spread"
    table = made("scaling", "handler, us", *numbers, "p50, us", "p99, us", "p99.9, us")
    for row in run.scaling:
        bound = bounds.get(row.title)
        most = f"{bound.rate:,.0f}{'' if bound.valid else ' ?'}" if bound else ""
        what = f"{row.handler_ns / 1000:g}", str(row.devices), str(row.vcpus), str(row.shards or "GIL")
        latency = [f"{value / 1000:.2f}" for value in (row.latency.p50, row.latency.p99, row.latency.p999)]
        shares = "shares CPUs" if row.oversubscribed else ""
        table.add_row(*what, f"{row.rate:,.0f}", most, f"{row.spread:.0%}", *latency, shares)
    return [table, *([f"  the bound in closed form: {summary(checks)} (?)"] if checks else [])]


def made(title: str, first: str, *numbers: str) -> Table:
    """A column of words, columns of numbers, and one for a remark."""
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", header_style="bold")
    table.add_column(first, overflow="fold", min_width=min(22, 2 * len(first)))
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    return table


def number(value: float | None) -> str:
    """Three digits, a dash for none.

    >>> number(1.2345), number(0.0561), number(640.2), number(None)
    ('1.23', '0.056', '640', '-')
    """
    if value is None:
        return "-"
    size = abs(value)
    return f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 3}f}"


def span(values: Sequence[float]) -> str:
    """From the least to the most."""
    return f"{number(min(values))}-{number(max(values))}"


def percentiles(value: Percentiles | None) -> str:
    """p50/p99/p99.9 in whole nanoseconds."""
    return "-" if value is None else f"{value.p50:.0f}/{value.p99:.0f}/{value.p999:.0f}"
