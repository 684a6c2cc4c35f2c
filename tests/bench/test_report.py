"""The report: one file, nothing fetched, everything in it; and the tables."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from shardio.bench.report import html, text
from shardio.bench.results import Figure, Percentiles, Point, Run, Unit
from shardio.bench.tables import everything
from tests.bench.test_results import FIGURE, HOST

pytest.importorskip("matplotlib")
SOME = Percentiles(100.0, 200.0, 300.0)
POINTS = [
    Point(devices, vcpus, shards, 0, 1e6 * vcpus, 0.1, SOME, vcpus + shards > 2)
    for devices in (1, 100)
    for vcpus in (1, 2)
    for shards in (0, 1)
]
RUN = Run(
    host=HOST,
    rows=[FIGURE],
    peers=[Figure("pipe", "a pipe", Unit.FLOOR, 600.0, [600.0], operation=6e4)],
    kvm=[Figure("kvm", "KVM exit, PIO read", Unit.IN_LOOP, 1.1, [1.1], reference=8e3, operation=9e3)],
    scaling=POINTS,
    costs=[Figure("start", "a machine starts", Unit.MILLISECONDS, 200.0, [200.0])],
    skipped={"QEMU": "is <not> installed"},
)


@pytest.fixture(scope="module")
def page() -> str:
    return html(RUN)


def test_it_is_whole_by_itself(page: str) -> None:
    assert page.startswith("<!doctype html>")
    assert not re.search(r"<(script|link|img)\b|@import|url\(http", page)


@pytest.mark.parametrize(
    "heading", ["The data path", "Peers", "KVM exits", "Scaling", "Devices", "Larger machines", "Raw"]
)
def test_every_part_is_there(page: str, heading: str) -> None:
    assert f"<h2>{heading}" in page


def test_it_has_a_plot_for_each_part_and_the_raw_run(page: str) -> None:
    assert page.count("<svg") == 7
    assert "&quot;handler_ns&quot;" in page


def test_text_is_escaped(page: str) -> None:
    assert "is &lt;not&gt; installed" in page


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_table_fits_its_terminal_and_keeps_what_decides(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None)

    for part in everything(RUN, width):
        console.print(part)

    lines = out.getvalue().splitlines()
    line = next(line for line in lines if "1.10" in line)
    assert "native handler" in line
    assert "x floor" in line
    assert line.rstrip().endswith("in gate")
    assert max(map(len, lines)) <= width


def test_the_tables_name_reach_gate_and_verdict() -> None:
    line = next(line for line in text(RUN).splitlines() if "native handler" in line)

    assert "1.10" in line
    assert "1.25" in line
    assert "in gate" in line


def test_a_bound_that_is_not_valid_is_marked() -> None:
    lines = [line for line in text(RUN).splitlines() if line.endswith("shares CPUs")]

    assert [line for line in lines if " ? " not in line] == []
    assert "points outside of its validity are marked (?)" in text(RUN)
