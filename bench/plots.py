"""The report's plots, as SVG: every axis has a name and a unit, every line a label."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from shardio.bench.bound import Check, Costs
from shardio.bench.results import Figure, Point, Run
from shardio.bench.tables import number

BLUE, PALE = "#1b6ca8", "#a9b4c2"
VERDICTS = {"reached": "#2e8b57", "in gate": "#c9822b", "missed": "#d1495b"}
SHOWN = 3.0
"""A bar of the data path ends here, its number goes on."""
STYLE: Any = {
    "svg.fonttype": "path", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e4e4e4", "axes.axisbelow": True,
}  # fmt: skip


class Line(NamedTuple):
    """Points that belong together, and matplotlib's format for them."""

    label: str
    points: Sequence[tuple[float, float]]
    form: str = "o-"


def _svg(draw: Callable[[Any, Sequence[Any]], None], size: tuple[float, float], panels: int = 1) -> str:
    """An SVG element of what `draw(figure, axes)` draws."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(1, panels, figsize=size, layout="constrained", squeeze=False)
        try:
            draw(figure, axes[0])
            out = io.StringIO()
            figure.savefig(out, format="svg", metadata={"Date": None})
        finally:
            pyplot.close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]


def _log(axis: Any) -> None:
    """A logarithmic axis with plain numbers."""
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    axis.set_major_formatter(lambda value, _: f"{value:,.15g}")
    axis.set_minor_formatter("")


def _bars(
    rows: Sequence[Figure], words: str, label: Callable[[Figure], str], *,
    length: Callable[[Figure], float] = lambda row: row.value, marks: Sequence[float] = (), log: bool = False,
) -> str:  # fmt: skip
    """A bar for each row; `marks`: a tick on each bar."""

    def draw(_figure: Any, axes: Sequence[Any]) -> None:
        axis, at, lengths = axes[0], range(len(rows)), [length(row) for row in rows]
        own = [BLUE if row.name.startswith(("shardio", "kvm")) else PALE for row in rows]
        axis.barh(at, lengths, color=[VERDICTS.get(row.verdict, own[y]) for y, row in enumerate(rows)])
        axis.plot(marks, at[: len(marks)], "k|", markersize=14)
        for y, row in enumerate(rows):
            end = max(lengths[y], *marks[y : y + 1], 0)
            axis.annotate(label(row), (end, y), (5, 0), textcoords="offset points", va="center", fontsize=8)
        if log:
            _log(axis.xaxis)
        axis.set_xlim(0.8 if log else 0, max(lengths) * (8 if log else 1.8))
        axis.set_yticks(at, [row.title for row in rows])
        axis.invert_yaxis()
        axis.set_xlabel(words)
        axis.grid(visible=False, axis="y")

    return _svg(draw, (9.0, 0.4 * len(rows) + 1.0))


def _lines(
    panels: dict[str, Sequence[Line]], x: str, y: str, *,
    log: str = "", ticks: Iterable[int] = (), title: str = "",
) -> str:  # fmt: skip
    """A panel of lines for each title; `log`: the logarithmic axes, "x", "y" or both."""

    def draw(figure: Any, axes: Sequence[Any]) -> None:
        for axis, (name, lines) in zip(axes, panels.items(), strict=True):
            for line in lines:
                axis.plot(*zip(*sorted(line.points), strict=True), line.form, label=line.label)
            axis.set(title=name, xlabel=x, ylabel=y)
            for which in log:
                _log(getattr(axis, f"{which}axis"))
            if "y" not in log:
                axis.set_ylim(bottom=0)
            if ticks:
                axis.set_xticks(sorted(set(ticks)), [str(each) for each in sorted(set(ticks))], minor=False)
        named = axes[0].get_legend_handles_labels()
        figure.legend(*named, loc="outside lower center", ncols=4, frameon=False)
        figure.suptitle(title, fontsize=9)

    return _svg(draw, (max(9.0, 3.6 * len(panels)), 3.8), len(panels))


def data_path(rows: Sequence[Figure]) -> str:
    """Each row as a part of what is to be reached, with its gate."""
    gated = [row for row in rows if row.reach and row.gate]
    return _bars(
        gated, "measured / reach (1: reached; black tick: the gate)",
        lambda row: f"{number(row.value)} {row.unit}, {number(row.beyond)} ns beyond",
        length=lambda row: min(row.value / (row.reach or 1), SHOWN),
        marks=[(row.gate or 0) / (row.reach or 1) for row in gated],
    )  # fmt: skip


def peers(rows: Sequence[Figure]) -> str:
    """Round trips of every peer, in floors, on a logarithmic axis."""
    words = "round trip to a Python device, multiples of the bare ping-pong (log)"
    def label(row: Figure) -> str:
        return f"{number(row.value)} x = {number(row.operation / 1000)} us"

    return _bars(sorted(rows, key=lambda row: row.value), words, label, log=True)


def kvm(rows: Sequence[Figure]) -> str:
    """An exit as a multiple of the same one answered in the loop."""
    return _bars(
        rows, "multiples of the same access answered inside the KVM_RUN loop, in C",
        lambda row: f"{row.value:.2f} x: {row.operation / 1000:.2f} us against {row.reference / 1000:.2f}",
    )  # fmt: skip


def _served(shards: int) -> str:
    return f"{shards} shard{'s' if shards > 1 else ''}" if shards else "one process (GIL)"


def scaling(points: Sequence[Point]) -> str:
    """Throughput over vCPUs, a panel for each handler, a line for each number of shards; the number of
    devices that is nearest to 100.
    """
    devices = min({point.devices for point in points}, key=lambda n: abs(n - 100))
    panels: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for p in points:
        if p.devices == devices:
            panel = panels.setdefault(f"handler computes {p.handler_ns / 1000:g} us", {})
            panel.setdefault(p.shards, []).append((p.vcpus, p.rate / 1000))
    return _lines(
        {name: [Line(_served(m), line, "o-" if m else "o--") for m, line in sorted(panel.items())]
         for name, panel in panels.items()},
        "vCPUs", "accesses a second, thousands",
        ticks={p.vcpus for p in points}, title=f"{devices:,} devices; the table marks what shares CPUs",
    )  # fmt: skip


def devices(points: Sequence[Point]) -> str:
    """Latency over devices, for one vCPU and the shortest handler: what routing costs."""
    handler, lines = min(point.handler_ns for point in points), []
    for m in sorted({point.shards for point in points if point.shards < 2}):
        line = [p for p in points if (p.handler_ns, p.shards, p.vcpus) == (handler, m, 1)]
        lines.append(Line(f"{_served(m)}, p50", [(p.devices, p.latency.p50) for p in line]))
        lines.append(Line(f"{_served(m)}, p99", [(p.devices, p.latency.p99) for p in line], ".:"))
    return _lines({"": lines}, "devices, accessed at random (log)", "time of an access, ns (log)", log="xy")


def larger(costs: Costs, vcpus: Sequence[int], shards: Sequence[int]) -> str:
    """What larger machines can reach, over vCPUs, a line for each number of shards."""
    lines = [Line(_served(m), [(n, costs.bound(n, m).rate / 1e6) for n in vcpus]) for m in shards]
    return _lines({"": lines}, "vCPUs (log)", "accesses a second, millions (log)", log="xy", ticks=vcpus)


def checks(rows: Sequence[Check]) -> str:
    """Measured rates against bounds; on the diagonal the bound is reached."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        name = row.machine + ("" if row.bound.valid else ", outside of its validity")
        groups.setdefault(name, []).append((row.point.rate, row.bound.rate))
    values = [value for group in groups.values() for point in group for value in point]
    ends = min(values) / 1.5, max(values) * 1.5
    lines = [Line(name, group, "x" if "outside" in name else "o") for name, group in groups.items()]
    lines.append(Line("bound = measurement", [(end, end) for end in ends], "-"))
    words = "measured, accesses a second (log)", "bound, accesses a second (log)"
    return _lines({"": lines}, *words, log="xy")


def of(run: Run) -> dict[str, str]:
    """The plots of what a run has, by heading."""
    drawn: dict[str, tuple[Callable[[Any], str], Sequence[Any]]] = {
        "The data path": (data_path, run.rows), "Peers": (peers, run.peers), "KVM exits": (kvm, run.kvm),
        "Scaling": (scaling, run.scaling), "Devices": (devices, run.scaling),
    }  # fmt: skip
    return {heading: draw(values) for heading, (draw, values) in drawn.items() if values}
