"""The report: one HTML file that needs no other: the machine, plots, tables, the bound, and the raw run."""

from __future__ import annotations

import html as markup
import io
from collections.abc import Sequence
from importlib.util import find_spec

import msgspec
from rich.console import Console

from shardio.bench import bound, plots, tables
from shardio.bench.errors import BenchError
from shardio.bench.results import Host, Run

WIDTH = 200
VCPUS = (1, 4, 16, 64, 256)
SHARDS = (1, 4, 16, 64)
HANDLER_NS = 1000
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem } h2 {
font-size: 1.15rem; margin-top: 2.2rem } svg { max-width: 100%; height: auto; display: block } pre { font:
11px/1.45 monospace; overflow-x: auto; background: #f6f7f8; padding: .8rem } dl { display: grid;
grid-template-columns: 9rem auto } dt { color: #666 } .caution { border-left: 4px solid #c9822b }
"""
EXPLAINED = {
    "The data path": "Each bar is a ratio to the bare atomic ping-pong of the same two processes (or to what "
    "the table names), as a part of what the design set out to reach.",
    "Peers": "The same one-register Python device, served in other ways and asked from Python; the first "
    "shardio bar is asked from C, as vCPU workers ask.",
    "KVM exits": "A guest that does one access over and over. A write into KVM's ring or to a doorbell "
    "leaves the guest running; all others hold the exit and re-entry, which no device changes.",
    "Scaling": "Each vCPU makes one access after the other; a vCPU drives the devices of one shard.",
    "Devices": "What many ranges cost: one vCPU, random accesses, handlers that do nothing.",
}


def html(run: Run, others: Sequence[Run] = ()) -> str:
    """The file's text. `others`: runs of other machines, to hold the bound against.

    Raises what `check_installed` raises.
    """
    check_installed()
    raw = markup.escape(msgspec.json.format(msgspec.json.encode(run)).decode())
    sections = [
        *(_section(title, EXPLAINED[title], plot) for title, plot in plots.of(run).items()),
        *_larger(run, others),
        f"<h2>Tables</h2><pre>{markup.escape(text(run))}</pre>",
        f"<h2>Raw</h2><details><summary>the run as JSON</summary><pre>{raw}</pre></details>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>shardio benchmark report</title>'
        f"<style>{STYLE}</style></head><body><h1>shardio benchmark report</h1>{_host(run.host, run)}"
        f"{''.join(sections)}</body></html>\n"
    )


def check_installed() -> None:
    """Raises `BenchError` where what draws is not installed."""
    if find_spec("matplotlib") is None:
        raise BenchError("the report needs matplotlib", "pip install 'shardio[bench]'")


def text(run: Run) -> str:
    """The tables for a page."""
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, highlight=False, markup=False, emoji=False, color_system=None)
    console.print(*tables.everything(run), sep="\n")
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _host(host: Host, run: Run) -> str:
    facts = {
        "machine": f"{host.machine}, {host.place}",
        "kernel": host.kernel,
        "interpreter": host.python,
        "shardio": f"{host.shardio} {host.commit}",
        "measured": f"{host.when}, {run.seconds:.0f} s, load {host.load:.1f} at the start",
    }
    rows = "".join(f"<dt>{name}</dt><dd>{markup.escape(value)}</dd>" for name, value in facts.items())
    cautions = host.caution + ["interrupted: only what was complete is here"] * run.interrupted
    return f"<dl>{rows}</dl>" + "".join(f'<p class="caution">{markup.escape(line)}</p>' for line in cautions)


def _section(title: str, words: str, svg: str = "") -> str:
    return f"<h2>{markup.escape(title)}</h2><p>{markup.escape(words)}</p>{svg}"


def _larger(run: Run, others: Sequence[Run]) -> list[str]:
    """What larger machines can reach at most, and how the bound fares where there are measurements."""
    if not run.scaling:
        return []
    try:
        nearest = min({p.handler_ns for p in run.scaling}, key=lambda ns: abs(ns - HANDLER_NS))
        costs = bound.Costs.measured(run, nearest)
        checks = [check for each in (run, *others) for check in bound.check(each)]
    except BenchError as error:
        return [_section("Larger machines", str(error))]
    words = (
        f"At the most: the least of vCPUs / {costs.trip:.0f} ns and shards / {costs.service:.0f} ns, with a "
        "CPU for every vCPU and shard. A bound, not a measurement."
    )
    sections = [_section("Larger machines, at the most", words, plots.larger(costs, VCPUS, SHARDS))]
    if checks:
        words = (
            "Each point is a measured one of two vCPUs or more; the costs are of one. Crosses are outside of "
            f"the bound's validity. {bound.summary(checks)}."
        )
        sections.append(_section("The bound against measurements", words, plots.checks(checks)))
    return sections
