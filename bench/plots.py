"""The report's plots, as SVG: every axis has a name and a unit, every line a label."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from shardio.bench.bound import Check, Costs, grid
from shardio.bench.results import Figure, Point, Run
from shardio.bench.tables import number

COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8a5fbf", "#c9822b", "#4a4e69", "#00868b")
GREY, PALE = "#777777", "#a9b4c2"
SHOWN = 3.0
"""A bar of the data path ends here, its number goes on."""
STYLE: Any = {
    "svg.fonttype": "path", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e4e4e4", "axes.axisbelow": True,
}  # fmt: skip


def _svg(draw: Callable[[Any, Any], None], size: tuple[float, float], panels: int = 1) -> str:
    """An SVG element of what `draw(figure, axes)` draws; `axes` is a list where there are several panels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(1, panels, figsize=size, layout="constrained", squeeze=False)
        try:
            draw(figure, axes[0] if panels > 1 else axes[0][0])
            out = io.StringIO()
            figure.savefig(out, format="svg", metadata={"Date": None})
        finally:
            pyplot.close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]


def _log(axis: Any, *multiples: int) -> None:
    """A logarithmic axis with plain numbers, at powers of ten and at `multiples` of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    axis.set_major_locator(LogLocator(10.0, subs=(1, *multiples)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.15g}"))
    axis.set_minor_formatter(NullFormatter())


def _bars(axis: Any, titles: Sequence[str], label: str) -> None:
    axis.set_yticks(range(len(titles)), titles)
    axis.set_xlabel(label)
    axis.grid(visible=False, axis="y")


def _line(axis: Any, points: Iterable[tuple[float, float]], colour: int, label: str, **style: Any) -> None:
    xs, ys = zip(*sorted(points), strict=True)
    axis.plot(xs, ys, **{"marker": "o", "color": COLOURS[colour % len(COLOURS)], "label": label, **style})


def _legend(figure: Any, axis: Any, columns: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns or len(labels), frameon=False)


def data_path(rows: Sequence[Figure]) -> str:
    """Each row as a part of what is to be reached, with its gate."""
    gated = [(row, row.reach, row.gate) for row in rows if row.reach and row.gate][::-1]
    colours = {"reached": COLOURS[2], "in gate": COLOURS[4], "missed": COLOURS[1]}

    def draw(_figure: Any, axis: Any) -> None:
        for at, (row, reach, gate) in enumerate(gated):
            length = min(row.value / reach, SHOWN)
            ends = [min(SHOWN, min(row.rounds) / reach), min(SHOWN, max(row.rounds) / reach)]
            axis.barh(at, length, color=colours[row.verdict], height=0.55)
            axis.plot([gate / reach] * 2, [at - 0.38, at + 0.38], color="black", linewidth=1.6)
            axis.plot(ends, [at, at], color=GREY, linewidth=1)
            label = f"{number(row.value)} {row.unit}, {number(row.beyond)} ns beyond"
            axis.text(max(gate / reach, length, *ends) + 0.05, at, label, va="center", fontsize=7)
        axis.axvline(1.0, color="black", linewidth=1, linestyle=":")
        axis.set_xlim(0, SHOWN * 1.35)
        words = "measured / reach (dotted line: the reach; black tick: the gate; grey: the rounds)"
        _bars(axis, [row.title for row, _, _ in gated], words)

    return _svg(draw, (9.0, 0.42 * len(gated) + 1.0))


def peers(rows: Sequence[Figure]) -> str:
    """Round trips of every peer, in floors, on a logarithmic axis."""
    ordered = sorted(rows, key=lambda row: -row.value)

    def draw(_figure: Any, axis: Any) -> None:
        for at, row in enumerate(ordered):
            axis.barh(at, row.value, color=COLOURS[0] if row.name.startswith("shardio") else PALE, height=0.6)
            label = f"{number(row.value)} x = {number(row.operation / 1000)} us"
            axis.text(row.value * 1.08, at, label, va="center", fontsize=8)
        _log(axis.xaxis)
        axis.set_xlim(0.8, max(row.value for row in ordered) * 8)
        words = "round trip to a Python device, multiples of the bare ping-pong (log)"
        _bars(axis, [row.title for row in ordered], words)

    return _svg(draw, (9.0, 0.38 * len(ordered) + 1.0))


def scaling(points: Sequence[Point]) -> str:
    """Throughput over vCPUs, a panel for each handler, a line for each number of shards; the number of
    devices that is nearest to 100.
    """
    handlers = sorted({point.handler_ns for point in points})
    devices = min({point.devices for point in points}, key=lambda n: abs(n - 100))

    def draw(figure: Any, axes: Any) -> None:
        panels = axes if len(handlers) > 1 else [axes]
        for axis, handler in zip(panels, handlers, strict=True):
            for colour, shards in enumerate(sorted({point.shards for point in points})):
                which = handler, shards, devices
                line = [p for p in points if (p.handler_ns, p.shards, p.devices) == which]
                label = f"{shards} shard{'s' if shards > 1 else ''}" if shards else "one process (GIL)"
                style = "-" if shards else "--"
                _line(axis, [(p.vcpus, p.rate / 1000) for p in line], colour, label, linestyle=style)
                ringed = [(p.vcpus, p.rate / 1000) for p in line if p.oversubscribed]
                if ringed:
                    ring = {"linestyle": "", "markersize": 9, "markerfacecolor": "none", "color": GREY}
                    _line(axis, ringed, 0, "", **ring)
            axis.set_title(f"handler computes {handler / 1000:g} us", fontsize=9)
            axis.set_xlabel("vCPUs")
            axis.set_ylabel("accesses a second, thousands")
            axis.set_ylim(bottom=0)
            axis.set_xticks(sorted({p.vcpus for p in points}))
        _legend(figure, panels[0], 0)
        figure.suptitle(f"{devices:,} devices; ringed points share CPUs", fontsize=9)

    return _svg(draw, (3.6 * len(handlers) + 0.4, 3.6), len(handlers))


def devices(points: Sequence[Point]) -> str:
    """Throughput over devices, for one vCPU and no computing: what routing costs."""
    handler = min(point.handler_ns for point in points)

    def draw(_figure: Any, axis: Any) -> None:
        for colour, shards in enumerate(sorted({point.shards for point in points if point.shards < 2})):
            line = [p for p in points if (p.handler_ns, p.shards, p.vcpus) == (handler, shards, 1)]
            name = "1 shard" if shards else "one process"
            _line(axis, [(p.devices, p.latency.p50) for p in line], colour, f"{name}, p50")
            tail = [(p.devices, p.latency.p99) for p in line]
            _line(axis, tail, colour, f"{name}, p99", marker=".", linestyle=":")
        _log(axis.xaxis)
        _log(axis.yaxis, 2, 5)
        axis.set_xlabel("devices, accessed at random (log)")
        axis.set_ylabel("time of an access, ns (log)")
        axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))

    return _svg(draw, (9.0, 3.4))


def kvm(rows: Sequence[Figure]) -> str:
    """An exit answered in the loop and by a device in a shard, side by side."""
    ordered = list(rows)[::-1]

    def draw(figure: Any, axis: Any) -> None:
        at = range(len(ordered))
        ours, loops = ([getattr(row, name) / 1000 for row in ordered] for name in ("operation", "reference"))
        axis.barh([y + 0.19 for y in at], ours, height=0.36, color=COLOURS[0], label="as the name says")
        inside = "the same access answered inside the KVM_RUN loop, in C"
        axis.barh([y - 0.19 for y in at], loops, height=0.36, color=PALE, label=inside)
        for y, row in enumerate(ordered):
            axis.text(max(ours[y], loops[y]) * 1.01, y, f"{row.value:.2f} x", va="center", fontsize=8)
        axis.set_xlim(0, max(*ours, *loops) * 1.12)
        titles = [row.title.removeprefix("KVM exit, ").removeprefix("KVM, ") for row in ordered]
        _bars(axis, titles, "an access and the guest's loop around it, us")
        _legend(figure, axis, 2)

    return _svg(draw, (9.0, 0.5 * len(ordered) + 1.2))


def larger(costs: Costs, vcpus: Sequence[int], shards: Sequence[int]) -> str:
    """What larger machines can reach, over vCPUs, a line for each number of shards."""

    def draw(figure: Any, axis: Any) -> None:
        for colour, (m, bounds) in enumerate(grid(costs, vcpus, shards).items()):
            line = [(n, each.rate / 1e6) for n, each in zip(vcpus, bounds, strict=True)]
            _line(axis, line, colour, f"{m} shard{'s' if m > 1 else ''}")
        axis.set_xscale("log", base=2)
        _log(axis.yaxis, 3)
        axis.set_xticks(vcpus, [str(n) for n in vcpus])
        axis.set_xlabel("vCPUs (log)")
        axis.set_ylabel("accesses a second, millions (log)")
        _legend(figure, axis, 0)

    return _svg(draw, (9.0, 3.8))


def checks(rows: Sequence[Check]) -> str:
    """Measured rates against bounds; on the diagonal the bound is reached."""

    def draw(figure: Any, axis: Any) -> None:
        for colour, machine in enumerate(dict.fromkeys(row.machine for row in rows)):
            for valid in (True, False):
                mine = [row for row in rows if (row.machine, row.bound.valid) == (machine, valid)]
                ours = COLOURS[colour % len(COLOURS)]
                face = {"facecolors": ours if valid else "none", "edgecolors": ours}
                label = machine + ("" if valid else ", outside of its validity")
                rates, bounds = [row.point.rate for row in mine], [row.bound.rate for row in mine]
                axis.scatter(rates, bounds, s=22, label=label, **face)
        values = [each for row in rows for each in (row.point.rate, row.bound.rate)]
        ends = [min(values) / 1.5, max(values) * 1.5]
        axis.plot(ends, ends, color=GREY, linewidth=1, label="bound = measurement")
        _log(axis.xaxis)
        _log(axis.yaxis)
        axis.set_xlabel("measured, accesses a second (log)")
        axis.set_ylabel("bound, accesses a second (log)")
        _legend(figure, axis, 2)

    return _svg(draw, (6.0, 4.4))


def of(run: Run) -> dict[str, str]:
    """The plots of what a run has, by heading."""
    found = {}
    if run.rows:
        found["The data path"] = data_path(run.rows)
    if run.peers:
        found["Peers"] = peers(run.peers)
    if run.kvm:
        found["KVM exits"] = kvm(run.kvm)
    if run.scaling:
        found["Scaling"] = scaling(run.scaling)
        found["Devices"] = devices(run.scaling)
    return found
