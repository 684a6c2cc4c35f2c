"""Measures how dispatch performs and scales on this machine, against its floor and against peers.

quick     the data path's table, in under a minute
scaling   vCPUs x shards x devices x what a handler computes
peers     the same device served in other ways, in the same run
kvm       real exits of a guest, answered by a shard and inside the KVM_RUN loop
report    all of it as one HTML file (from earlier runs, with --from)
compare   two runs, with a verdict where they differ by more than their noise
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from shardio.cli.summary import console

if TYPE_CHECKING:
    from shardio.bench.results import Run
    from shardio.bench.suites import Plan

WIDTH = 165
"""Columns of a table into a file or pipe."""
EXIT_MISSED = 1
EXIT_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options, by suite."""
    suites = parser.add_subparsers(dest="suite", metavar="SUITE", required=True)
    for name, text in (
        ("quick", "the data path's table"),
        ("scaling", "vCPUs x shards x devices x handlers"),
        ("peers", "other ways to serve the same device"),
        ("kvm", "real exits"),
        ("report", "everything, as one HTML file"),
    ):
        suite = suites.add_parser(name, help=text, allow_abbrev=False)
        suite.add_argument("--json", metavar="FILE", help="keep the run in this file")
        suite.add_argument(
            "--rounds", type=_positive, default=5, metavar="N", help="rounds of each figure (default 5)"
        )
        suite.add_argument(
            "--time", type=float, default=0.8, metavar="SECONDS", help="of each round (default 0.8)"
        )
        if name in ("scaling", "report"):
            suite.add_argument(
                "--devices", type=_numbers, default=(1, 10, 100, 1000, 10_000), metavar="N,..."
            )
            suite.add_argument("--vcpus", type=_numbers, default=(1, 2, 4), metavar="N,...")
            suite.add_argument("--shards", type=_numbers, default=(1, 2, 4), metavar="N,...")
            suite.add_argument(
                "--handler",
                type=_durations,
                default=(0, 1000, 10_000),
                metavar="TIME,...",
                help="what a handler computes: 0, 1us, 250ns (default 0,1us,10us)",
            )
        if name == "peers":
            suite.add_argument(
                "--only",
                metavar="NAME,...",
                type=lambda text: tuple(text.split(",")),
                default=(),
                help="these peers alone",
            )
            suite.add_argument(
                "--python",
                default="",
                metavar="PROGRAM",
                help="the free-threaded Python, or that with subinterpreters, to compare with (default: "
                "$SHARDIO_BENCH_PYTHON, or one on PATH or of pyenv)",
            )
        if name == "report":
            suite.add_argument(
                "--from",
                dest="sources",
                action="append",
                default=[],
                metavar="FILE",
                help="show this run, do not measure (may be repeated)",
            )
            suite.add_argument(
                "--output", default="shardio-report.html", metavar="FILE", help="default shardio-report.html"
            )
            suite.add_argument(
                "--validate",
                action="append",
                default=[],
                metavar="FILE",
                help="a scaling run of another machine, to hold the model against",
            )
    compare = suites.add_parser("compare", help="two runs", allow_abbrev=False)
    compare.add_argument("before", metavar="A.json")
    compare.add_argument("after", metavar="B.json")


def execute(arguments: argparse.Namespace) -> int:
    """Measures, prints tables, keeps the run; status 1 when a gate was missed, 130 when it was
    interrupted.
    """
    out = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    if arguments.suite == "compare":
        return _compare(arguments, out)
    if arguments.suite == "report":
        return _report(arguments, out)
    run = _measure(arguments, out)
    _show(run, out)
    if run.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_MISSED if any(row.verdict == "missed" for row in run.rows) else 0


def _measure(arguments: argparse.Namespace, out: Console) -> Run:
    from shardio.bench import results, suites

    plan = _plan(arguments)
    err = console(sys.stderr)
    for line in suites.preamble(plan.host):
        err.print(line)
    run = _with_progress(plan, err)
    if arguments.json:
        results.save(run, Path(arguments.json))
    return run


def _plan(arguments: argparse.Namespace) -> Plan:
    from shardio.bench import suites
    from shardio.bench.effort import Effort

    effort = Effort(rounds=arguments.rounds, seconds=arguments.time)
    match arguments.suite:
        case "quick":
            return suites.quick(effort)
        case "kvm":
            return suites.kvm(effort)
        case "peers":
            return suites.peers(effort, arguments.only, arguments.python)
        case "scaling":
            return suites.scaling(
                effort, arguments.devices, arguments.vcpus, arguments.shards, arguments.handler
            )
        case _:
            return suites.everything(
                effort, arguments.devices, arguments.vcpus, arguments.shards, arguments.handler
            )


def _with_progress(plan: Plan, err: Console) -> Run:
    """Runs a plan. The bar is drawn between blocks only: a thread that draws would be part of what is
    measured.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns,
        console=err,
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        task = progress.add_task("", total=plan.seconds)
        drawn = time.monotonic()

        def tell(description: str, seconds: float) -> None:
            nonlocal drawn
            progress.update(task, description=description, advance=seconds)
            if time.monotonic() - drawn > 0.5:
                progress.refresh()
                drawn = time.monotonic()

        return plan.run(tell)


def _show(run: Run, out: Console) -> None:
    from shardio.bench import tables

    for part in tables.everything(run):
        out.print(part)


def _report(arguments: argparse.Namespace, out: Console) -> int:
    from shardio.bench import report, results

    runs = [results.load(Path(source)) for source in arguments.sources] or [_measure(arguments, out)]
    others = [results.load(Path(source)) for source in arguments.validate]
    run = results.merged(runs)
    Path(arguments.output).write_text(report.html(run, others))
    _show(run, out)
    out.print(f"report: {arguments.output}")
    return EXIT_INTERRUPTED if run.interrupted else 0


def _compare(arguments: argparse.Namespace, out: Console) -> int:
    from shardio.bench import compare, results

    before, after = (results.load(Path(name)) for name in (arguments.before, arguments.after))
    out.print(compare.table(compare.compare(before, after)))
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _list(text: str, convert: Callable[[str], int]) -> tuple[int, ...]:
    try:
        return tuple(convert(part.strip()) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list such as 1,2,4") from None


def _numbers(text: str) -> tuple[int, ...]:
    return _list(text, _positive)


def _durations(text: str) -> tuple[int, ...]:
    """Nanoseconds of a list of durations.

    >>> _durations("0,1us,250ns,2ms")
    (0, 1000, 250, 2000000)
    """
    return _list(text, _duration)


def _duration(text: str) -> int:
    for suffix, scale in (("ns", 1), ("us", 1000), ("ms", 1_000_000)):
        if text.endswith(suffix):
            return round(float(text.removesuffix(suffix)) * scale)
    if float(text) != 0:
        raise ValueError(text)
    return 0
