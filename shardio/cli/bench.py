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
import math
import os
import sys
import time
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
        ("quick", "the data path's table; status 1 when a gate is missed"),
        ("scaling", "vCPUs x shards x devices x handlers, beside one process under its GIL"),
        ("peers", "other ways to serve the same device"),
        ("kvm", "real exits"),
        ("report", "everything, as one HTML file"),
    ):
        suite = suites.add_parser(name, help=text, description=text, allow_abbrev=False)
        suite.add_argument("--json", metavar="FILE", help="keep the run in this file")
        suite.add_argument(
            "--rounds", type=_positive, default=5, metavar="N", help="rounds of each figure (default 5)"
        )
        suite.add_argument(
            "--time", type=_seconds, default=0.8, metavar="SECONDS", help="of each round (default 0.8)"
        )
        if name in ("scaling", "report"):
            _add_grid(suite)
        if name in ("peers", "report"):
            _add_python(suite)
        if name == "peers":
            suite.add_argument(
                "--only", metavar="NAME,...", type=_names, default=(), help="these peers alone"
            )
        if name == "report":
            _add_report(suite)
    compare = suites.add_parser(
        "compare",
        help="two runs",
        description="two runs, with a verdict where they differ by more than their noise",
        allow_abbrev=False,
    )
    compare.add_argument("before", metavar="A.json", help="a run that --json has kept")
    compare.add_argument("after", metavar="B.json", help="another one")


def _add_grid(suite: argparse.ArgumentParser) -> None:
    few, many = (1, 2, 4), (1, 10, 100, 1000, 10_000)
    for name, default in (("devices", many), ("vcpus", few), ("shards", few)):
        shown = ",".join(map(str, default))
        suite.add_argument(
            f"--{name}",
            type=_numbers,
            default=default,
            metavar="N,...",
            help=f"numbers of {name.replace('vcpus', 'vCPUs')} (default {shown})",
        )
    suite.add_argument(
        "--handler",
        type=_durations,
        default=(0, 1000, 10_000),
        metavar="TIME,...",
        help="what a handler computes: 0, 1us, 250ns (default 0,1us,10us)",
    )


def _add_python(suite: argparse.ArgumentParser) -> None:
    suite.add_argument(
        "--python",
        default="",
        metavar="PROGRAM",
        help="the free-threaded Python, or that with subinterpreters, to compare with (default: "
        "$SHARDIO_BENCH_PYTHON, or one on PATH or of pyenv)",
    )


def _add_report(suite: argparse.ArgumentParser) -> None:
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
    if arguments.json:
        _check_writable(arguments.json)
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
                effort,
                arguments.devices,
                arguments.vcpus,
                arguments.shards,
                arguments.handler,
                arguments.python,
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

    for part in tables.everything(run, out.width):
        out.print(part)


def _report(arguments: argparse.Namespace, out: Console) -> int:
    from shardio.bench import report, results

    # What can be wrong is found before minutes of measuring.
    report.check_installed()
    _check_writable(arguments.output)
    others = [results.load(Path(source)) for source in arguments.validate]
    runs = [results.load(Path(source)) for source in arguments.sources] or [_measure(arguments, out)]
    run = results.merged(runs)
    Path(arguments.output).write_text(report.html(run, others))
    _show(run, out)
    out.print(f"report: {arguments.output}")
    return EXIT_INTERRUPTED if run.interrupted and not arguments.sources else 0


def _compare(arguments: argparse.Namespace, out: Console) -> int:
    from shardio.bench import compare, results

    before, after = (results.load(Path(name)) for name in (arguments.before, arguments.after))
    differences = compare.compare(before, after)
    for line in compare.preamble(before, after):
        out.print(line)
    out.print(compare.table(differences))
    return 0


def _check_writable(name: str) -> None:
    """Raises `BenchError` where a file of this name could not be written."""
    from shardio.bench.errors import BenchError

    path = Path(name)
    place = path if path.exists() else path.absolute().parent
    if path.is_dir() or not os.access(place, os.W_OK):
        raise BenchError(f"{name} cannot be written", "name a file in a folder that exists and is yours")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0, such as 0.8")
    return value


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(_positive(part.strip()) for part in text.split(","))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers above 0, such as 1,2,4") from None


def _durations(text: str) -> tuple[int, ...]:
    """Nanoseconds of a list of durations.

    >>> _durations("0,1us,250ns,2ms")
    (0, 1000, 250, 2000000)
    """
    try:
        return tuple(_duration(part.strip()) for part in text.split(","))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of times, such as 0,1us,250ns") from None


def _duration(text: str) -> int:
    for suffix, scale in (("ns", 1), ("us", 1000), ("ms", 1_000_000)):
        if text.endswith(suffix):
            value = round(float(text.removesuffix(suffix)) * scale)
            break
    else:
        value = round(float(text)) if float(text) == 0 else -1
    if value < 0:
        raise ValueError(text)
    return value
