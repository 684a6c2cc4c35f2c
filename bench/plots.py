"""The report's plots, as SVG: every axis has a name and a unit, every line a label."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from shardio.bench.model import Check
from shardio.bench.results import Figure, Point, Run
from shardio.bench.simulation import Prediction
from shardio.bench.tables import number

WIDE = (9.0, 4.2)
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8a5fbf", "#c9822b", "#4a4e69", "#00868b")
GREY = "#777777"
SHOWN = 3.0
"""A bar of the data path ends here, its number goes on."""


def _svg(draw: Callable[[Any, Any], None], size: tuple[float, float] = WIDE, panels: int = 1) -> str:
    """An SVG element of what `draw(figure, axes)` draws."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(
        {
            "svg.fonttype": "path",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e4e4e4",
            "axes.axisbelow": True,
        }
    ):
        figure, axes = pyplot.subplots(1, panels, figsize=size, layout="constrained", squeeze=False)
        try:
            draw(figure, axes[0])
            out = io.StringIO()
            figure.savefig(out, format="svg", metadata={"Date": None})
        finally:
            pyplot.close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]


def _plain(axis: Any, *multiples: int) -> None:
    """Numbers as numbers on a logarithmic axis: at powers of ten, and at `multiples` of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(10.0, subs=(1, *multiples)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.15g}"))
    axis.set_minor_formatter(NullFormatter())


def data_path(rows: Sequence[Figure]) -> str:
    """Each row as a part of what is to be reached, with its gate."""
    gated = [(row, row.reach, row.gate) for row in rows if row.reach and row.gate][::-1]
    colours = {"reached": COLOURS[2], "in gate": COLOURS[4], "missed": COLOURS[1]}

    def draw(_figure: Any, axes: Any) -> None:
        axis = axes[0]
        for at, (row, reach, gate) in enumerate(gated):
            axis.barh(at, min(row.value / reach, SHOWN), color=colours[row.verdict], height=0.55)
            label = f"{number(row.value)} {row.unit}"
            ends = [min(SHOWN, min(row.rounds) / reach), min(SHOWN, max(row.rounds) / reach)]
            end = max(gate / reach, min(row.value / reach, SHOWN), *ends)
            axis.text(end + 0.05, at, label, va="center", fontsize=7)
            axis.plot([gate / reach] * 2, [at - 0.38, at + 0.38], color="black", linewidth=1.6)
            axis.plot(ends, [at, at], color=GREY, linewidth=1)
        axis.axvline(1.0, color="black", linewidth=1, linestyle=":")
        axis.set_yticks(range(len(gated)), [row.title for row, _, _ in gated])
        axis.set_xlabel("measured / reach (dotted line: the reach; black tick: the gate; grey: the rounds)")
        axis.set_xlim(0, SHOWN * 1.35)
        axis.grid(visible=False, axis="y")

    return _svg(draw, (9.0, 0.42 * len(gated) + 1.0))


def peers(rows: Sequence[Figure]) -> str:
    """Round trips of every peer, in floors, on a logarithmic axis."""
    ordered = sorted(rows, key=lambda row: -row.value)

    def draw(_figure: Any, axes: Any) -> None:
        axis = axes[0]
        for at, row in enumerate(ordered):
            axis.barh(
                at, row.value, color=COLOURS[0] if row.name.startswith("shardio") else "#a9b4c2", height=0.6
            )
            axis.text(
                row.value * 1.08,
                at,
                f"{number(row.value)} x = {number(row.operation / 1000)} us",
                va="center",
                fontsize=8,
            )
        axis.set_xscale("log")
        axis.set_xlim(0.8, max(row.value for row in ordered) * 8)
        axis.grid(visible=False, axis="y")
        _plain(axis.xaxis)
        axis.set_yticks(range(len(ordered)), [row.title for row in ordered])
        axis.set_xlabel("round trip to a Python device, multiples of the bare ping-pong (log)")

    return _svg(draw, (9.0, 0.38 * len(ordered) + 1.0))


def scaling(points: Sequence[Point]) -> str:
    """Throughput over vCPUs, a panel for each handler, a line for each number of shards; one number of
    devices.
    """
    handlers = sorted({point.handler_ns for point in points})
    devices = _middle_devices(points)

    def draw(figure: Any, axes: Any) -> None:
        for axis, handler in zip(axes, handlers, strict=True):
            for line_number, shards in enumerate(sorted({point.shards for point in points})):
                line = sorted(
                    (p for p in points if (p.handler_ns, p.shards, p.devices) == (handler, shards, devices)),
                    key=lambda p: p.vcpus,
                )
                label = f"{shards} shard{'s' if shards > 1 else ''}" if shards else "one process (GIL)"
                axis.plot(
                    [p.vcpus for p in line],
                    [p.rate / 1000 for p in line],
                    marker="o",
                    color=COLOURS[line_number % 7],
                    linestyle="-" if shards else "--",
                    label=label,
                )
                for p in line:
                    if p.oversubscribed:
                        axis.plot(
                            p.vcpus,
                            p.rate / 1000,
                            marker="o",
                            markersize=9,
                            markerfacecolor="none",
                            markeredgecolor=GREY,
                        )
            axis.set_title(f"handler computes {handler / 1000:g} us", fontsize=9)
            axis.set_xlabel("vCPUs")
            axis.set_ylabel("accesses a second, thousands")
            axis.set_ylim(bottom=0)
            axis.set_xticks(sorted({p.vcpus for p in points}))
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        figure.suptitle(f"{devices:,} devices; ringed points share CPUs", fontsize=9)

    return _svg(draw, (3.6 * len(handlers) + 0.4, 3.6), len(handlers))


def devices(points: Sequence[Point]) -> str:
    """Throughput over devices, for one vCPU and no computing: what routing costs."""
    handler = min(point.handler_ns for point in points)

    def draw(_figure: Any, axes: Any) -> None:
        axis = axes[0]
        for line_number, shards in enumerate(sorted({point.shards for point in points if point.shards < 2})):
            line = sorted(
                (p for p in points if (p.handler_ns, p.shards, p.vcpus) == (handler, shards, 1)),
                key=lambda p: p.devices,
            )
            axis.plot(
                [p.devices for p in line],
                [p.latency.p50 for p in line],
                marker="o",
                color=COLOURS[line_number],
                label=f"{'1 shard' if shards else 'one process'}, p50",
            )
            axis.plot(
                [p.devices for p in line],
                [p.latency.p99 for p in line],
                marker=".",
                linestyle=":",
                color=COLOURS[line_number],
                label=f"{'1 shard' if shards else 'one process'}, p99",
            )
        axis.set_xscale("log")
        axis.set_yscale("log")
        _plain(axis.xaxis)
        _plain(axis.yaxis, 2, 5)
        axis.set_xlabel("devices, accessed at random (log)")
        axis.set_ylabel("time of an access, ns (log)")
        axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))

    return _svg(draw, (9.0, 3.4))


def kvm(rows: Sequence[Figure]) -> str:
    """An exit answered in the loop and by a device in a shard, side by side."""
    ordered = list(rows)[::-1]

    def draw(figure: Any, axes: Any) -> None:
        axis = axes[0]
        for at, row in enumerate(ordered):
            axis.barh(
                at + 0.19,
                row.operation / 1000,
                height=0.36,
                color=COLOURS[0],
                label="as the name says" if at == 0 else None,
            )
            axis.barh(
                at - 0.19,
                row.reference / 1000,
                height=0.36,
                color="#a9b4c2",
                label="the same access answered inside the KVM_RUN loop, in C" if at == 0 else None,
            )
            axis.text(
                max(row.operation, row.reference) / 1000 * 1.01,
                at,
                f"{row.value:.2f} x",
                va="center",
                fontsize=8,
            )
        names = [row.title.removeprefix("KVM exit, ").removeprefix("KVM, ") for row in ordered]
        axis.set_yticks(range(len(ordered)), names)
        axis.set_xlim(0, max(max(row.operation, row.reference) for row in ordered) / 1000 * 1.12)
        axis.set_xlabel("an access and the guest's loop around it, us")
        axis.grid(visible=False, axis="y")
        figure.legend(loc="outside lower center", ncols=2, frameon=False)

    return _svg(draw, (9.0, 0.5 * len(ordered) + 1.2))


def model(predictions: Sequence[Prediction]) -> str:
    """What the model says of larger machines: throughput, and p99, over vCPUs, a line for each number of
    shards.
    """

    def draw(figure: Any, axes: Any) -> None:
        for line_number, shards in enumerate(sorted({p.shards for p in predictions})):
            line = sorted((p for p in predictions if p.shards == shards), key=lambda p: p.vcpus)
            style = {
                "marker": ".",
                "color": COLOURS[line_number % 7],
                "label": f"{shards} shard{'s' if shards > 1 else ''}",
            }
            axes[0].plot([p.vcpus for p in line], [p.rate / 1e6 for p in line], **style)
            axes[1].plot([p.vcpus for p in line], [p.latency.p99 / 1000 for p in line], **style)
        for axis, label in zip(
            axes, ("accesses a second, millions (log)", "p99 of an access, us (log)"), strict=True
        ):
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            _plain(axis.yaxis, 3)
            ticks = sorted({p.vcpus for p in predictions})
            axis.set_xticks(ticks, [str(tick) for tick in ticks])
            axis.set_xlabel("vCPUs (log)")
            axis.set_ylabel(label)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)

    return _svg(draw, (9.0, 3.8), 2)


def checks(rows: Sequence[Check]) -> str:
    """Measured against predicted rates and p99; on the diagonal the model is right."""
    groups = list(dict.fromkeys((row.machine, row.point.oversubscribed) for row in rows))

    def draw(figure: Any, axes: Any) -> None:
        kinds: tuple[tuple[str, Callable[[Point | Prediction], float]], ...] = (
            ("accesses a second", lambda each: each.rate),
            ("p99 of an access, us", lambda each: each.latency.p99 / 1000),
        )
        for axis, (name, value) in zip(axes, kinds, strict=True):
            for number_, (machine, shared) in enumerate(groups):
                mine = [row for row in rows if (row.machine, row.point.oversubscribed) == (machine, shared)]
                axis.scatter(
                    [value(row.point) for row in mine],
                    [value(row.prediction) for row in mine],
                    s=22,
                    color=COLOURS[number_ % 7],
                    label=f"{machine}, {'sharing CPUs' if shared else 'a CPU each'}",
                )
            all_values = [value(each) for row in rows for each in (row.point, row.prediction)]
            ends = [min(all_values) / 1.5, max(all_values) * 1.5]
            axis.plot(ends, ends, color=GREY, linewidth=1, label="model = measurement")
            axis.set_xscale("log")
            axis.set_yscale("log")
            _plain(axis.xaxis)
            _plain(axis.yaxis)
            axis.set_xlabel(f"measured, {name} (log)")
            axis.set_ylabel(f"predicted, {name} (log)")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)

    return _svg(draw, (9.0, 4.2), 2)


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


def _middle_devices(points: Sequence[Point]) -> int:
    """The number of devices to show: the one nearest to 100, of those that were measured."""
    return min({point.devices for point in points}, key=lambda devices: abs(devices - 100))
