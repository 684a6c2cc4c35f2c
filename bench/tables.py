"""Results as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from rich.table import Table

from shardio.bench.results import Cost, Figure, Percentiles, Point, Run, Unit

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
        shown += [points(run.scaling, "scaling"), ""]
    if run.costs:
        shown += [costs(run.costs, "start-up and memory"), ""]
    shown += [f"not measured: {name}: {why}" for name, why in run.skipped.items()]
    return shown + (["interrupted: what was complete is above"] if run.interrupted else [])


def figures(rows: Iterable[Figure], title: str, width: int = WIDE) -> Table:
    """Rows with what was to be reached, what was measured and in which regime. Times in nanoseconds."""
    rows = list(rows)
    gated = any(row.gate is not None for row in rows)
    numbers: list[tuple[str, Callable[[Figure], str], float]] = [
        ("reach", lambda row: number(row.reach), 0 if gated else math.inf),
        ("gate", lambda row: number(row.gate), 0 if gated else math.inf),
        ("measured", lambda row: number(row.value), 0),
        ("rounds", lambda row: f"{number(min(row.rounds))}-{number(max(row.rounds))}", MEDIUM),
        ("of", lambda row: unit_name(row.unit), 0),
        ("one, ns", lambda row: f"{row.operation:.0f}", WIDE if gated else 0),
        ("p50/p99/p99.9", lambda row: percentiles(row.latency), WIDE),
        ("floor p50/p99/p99.9", lambda row: percentiles(row.floor), WIDE),
    ]
    shown = [(name, cell) for name, cell, least in numbers if width >= least]
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", header_style="bold")
    table.add_column("work", overflow="fold", min_width=22)
    for name, _ in shown:
        if name == "of":
            table.add_column(name, overflow="fold", min_width=12)
        else:
            table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        verdict = f"[{_COLOURS[row.verdict]}]{row.verdict}[/]" if row.verdict else ""
        table.add_row(row.title, *(cell(row) for _, cell in shown), verdict)
    return table


def notes(rows: Sequence[Figure]) -> list[str]:
    """What rows say beside their numbers."""
    lines = [f"{row.title}: {row.note}" for row in rows if row.note]
    return lines + [
        f"{row.title}: {row.set_aside:.0%} of the blocks measured again, another program had a CPU"
        for row in rows
        if row.set_aside >= 0.01
    ]


def points(rows: Sequence[Point], title: str) -> Table:
    """Scaling: accesses a second by what was varied."""
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", header_style="bold")
    for name in (
        "handler, us",
        "devices",
        "vCPUs",
        "shards",
        "accesses/s",
        "spread",
        "p50, us",
        "p99, us",
        "p99.9, us",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for row in rows:
        latency = [f"{value / 1000:.2f}" for value in (row.latency.p50, row.latency.p99, row.latency.p999)]
        table.add_row(
            f"{row.handler_ns / 1000:g}",
            str(row.devices),
            str(row.vcpus),
            str(row.shards) if row.shards else "GIL",
            f"{row.rate:,.0f}",
            f"{row.spread:.0%}",
            *latency,
            "shares CPUs" if row.oversubscribed else "",
        )
    return table


def costs(rows: Iterable[Cost], title: str) -> Table:
    """Start-up times and memory."""
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", header_style="bold")
    table.add_column("what", overflow="fold")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for row in rows:
        table.add_row(row.title, f"{row.value:,.2f} {row.unit}", row.note)
    return table


def number(value: float | None) -> str:
    """Three digits, a dash for none.

    >>> number(1.2345), number(0.0561), number(640.2), number(None)
    ('1.23', '0.056', '640', '-')
    """
    if value is None:
        return "-"
    return (
        f"{value:.0f}"
        if value >= 100
        else f"{value:.1f}"
        if value >= 10
        else f"{value:.2f}"
        if value >= 0.1
        else f"{value:.3f}"
    )


def percentiles(value: Percentiles | None) -> str:
    """p50/p99/p99.9 in whole nanoseconds."""
    return "-" if value is None else f"{value.p50:.0f}/{value.p99:.0f}/{value.p999:.0f}"


def unit_name(unit: Unit) -> str:
    """How a unit is written in a table."""
    return str(unit)
