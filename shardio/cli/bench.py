"""Measures how dispatch performs and scales on this machine, against its floor and against peers."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from shardio.cli.summary import console

if TYPE_CHECKING:
    from shardio.bench.results import Run
    from shardio.bench.suites import Plan

WIDTH = 200
"""Columns of a table into a file or pipe."""
EXIT_MISSED = 1
EXIT_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options, by suite."""
    suites = parser.add_subparsers(dest="suite", metavar="SUITE", required=True)
    for name, text in SUITES.items():
        suite = suites.add_parser(name, help=text, description=text, allow_abbrev=False)
        for option, (kind, default, metavar, words, of) in OPTIONS.items():
            if name in of.split():
                many: dict[str, Any] = {"action": "append", "dest": option} if default == [] else {}
                more = {"default": default, "metavar": metavar, "help": words, **many}
                suite.add_argument(f"--{option}", type=kind, **more)
    suite = suites.add_parser("compare", help=COMPARE, description=COMPARE, allow_abbrev=False)
    suite.add_argument("before", metavar="A.json", help="a run that --json has kept")
    suite.add_argument("after", metavar="B.json", nargs="+", help="another one; or several: all in one table")


def execute(arguments: argparse.Namespace) -> int:
    """Measures, prints tables, keeps the run; status 1 when a gate was missed, 130 when it was
    interrupted.
    """
    out = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else WIDTH)
    if arguments.suite == "compare":
        return _compare(arguments, out)
    if arguments.suite == "report":
        return _report(arguments, out)
    from shardio.bench import tables

    run = _measure(arguments, out)
    out.print(*tables.everything(run, out.width), sep="\n")
    if run.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_MISSED if any(row.verdict == "missed" for row in run.rows) else 0


def _measure(arguments: argparse.Namespace, out: Console) -> Run:
    from shardio.bench import results, suites
    from shardio.bench.effort import Effort
    from shardio.bench.peers.interpreter import VARIABLE
    from shardio.bench.scaling import Grid

    if getattr(arguments, "python", ""):
        os.environ[VARIABLE] = arguments.python  # for this program, and what it starts
    varied = [getattr(arguments, name, ()) for name in ("devices", "vcpus", "shards", "handler")]
    effort, only = Effort(rounds=arguments.rounds, seconds=arguments.time), getattr(arguments, "only", ())
    plan = suites.plan(arguments.suite, effort, Grid(*varied) if all(varied) else None, only)
    if arguments.json:
        _check_writable(arguments.json)
    err = console(sys.stderr)
    err.print(f"{plan.host.machine}, {plan.host.place}; Linux {plan.host.kernel}, {plan.host.python}")
    for line in plan.host.caution:
        err.print(f"caution: {line}")
    run = _with_progress(plan, err)
    if arguments.json:
        results.save(run, Path(arguments.json))
    return run


def _with_progress(plan: Plan, err: Console) -> Run:
    """Runs a plan. The bar is drawn between blocks only: a thread that draws would be part of what is
    measured.
    """
    percent = TextColumn("{task.percentage:>3.0f}%")
    shown = TextColumn("{task.description}"), BarColumn(), percent, TimeRemainingColumn()
    quiet: Any = dict.fromkeys(("auto_refresh", "redirect_stdout", "redirect_stderr"), False)
    with Progress(*shown, console=err, transient=True, **quiet) as progress:
        task = progress.add_task("", total=plan.seconds)
        drawn = time.monotonic()

        def tell(description: str, seconds: float) -> None:
            nonlocal drawn
            progress.update(task, description=description, advance=seconds)
            if time.monotonic() - drawn > 0.5:
                progress.refresh()
                drawn = time.monotonic()

        return plan.run(tell)


def _report(arguments: argparse.Namespace, out: Console) -> int:
    from shardio.bench import report, results, tables

    # What can be wrong is found before minutes of measuring.
    report.check_installed()
    _check_writable(arguments.output)
    others = [results.load(Path(source)) for source in arguments.validate]
    runs = [results.load(Path(source)) for source in getattr(arguments, "from")] or [_measure(arguments, out)]
    run = results.merged(runs)
    Path(arguments.output).write_text(report.html(run, others))
    out.print(*tables.everything(run, out.width), sep="\n")
    out.print(f"report: {arguments.output}")
    return EXIT_INTERRUPTED if run.interrupted and not getattr(arguments, "from") else 0


def _compare(arguments: argparse.Namespace, out: Console) -> int:
    from shardio.bench import compare, results

    runs = [results.load(Path(name)) for name in (arguments.before, *arguments.after)]
    found = compare.table(compare.compare(*runs)) if len(runs) == 2 else compare.together(runs)
    out.print(*compare.preamble(runs), found, sep="\n")
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
        if 0 < (value := float(text)) < math.inf:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0, such as 0.8")


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(_positive, _names(text)))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers above 0, such as 1,2,4") from None


def _durations(text: str) -> tuple[int, ...]:
    """Nanoseconds of a list of durations.

    >>> _durations("0,1us,250ns,2ms")
    (0, 1000, 250, 2000000)
    """
    parts = [re.fullmatch(r"0()|([0-9.]+)(ns|us|ms)", part) for part in _names(text)]
    try:
        return tuple(round(float(each[2] or 0) * SCALES[each[3]]) for each in parts)  # type: ignore[index]
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of times, such as 0,1us,250ns") from None


SCALES = {None: 0, "ns": 1, "us": 1000, "ms": 1_000_000}
SUITES = {
    "quick": "the data path's table, in about a minute; status 1 when a gate is missed",
    "scaling": "vCPUs x shards x devices x what a handler computes, beside one process under its GIL",
    "peers": "the same device served in other ways, in the same run",
    "kvm": "real exits of a guest, answered by a shard, by QEMU, and inside the KVM_RUN loop",
    "report": "all of it as one HTML file (from earlier runs, with --from)",
}
COMPARE = "two runs, with a verdict where they differ by more than their noise; or several, in one table"
HANDLER = "what a handler computes: 0, 1us, 250ns (default 0,1us,10us)"
PYTHON = (
    "the free-threaded Python, or that with subinterpreters, to compare with (default: "
    "$SHARDIO_BENCH_PYTHON, or one on PATH or of pyenv)"
)
_ALL, _GRID = " ".join(SUITES), "scaling report"
_FEW, _MANY = (1, 2, 4), (1, 10, 100, 1000, 10_000)
OPTIONS: dict[str, tuple[Callable[[str], Any], Any, str, str, str]] = {
    "json": (str, None, "FILE", "keep the run in this file", _ALL),
    "rounds": (_positive, 5, "N", "rounds of each figure (default 5)", _ALL),
    "time": (_seconds, 0.8, "SECONDS", "of each round (default 0.8)", _ALL),
    "devices": (_numbers, _MANY, "N,...", "numbers of devices (default 1,10,100,1000,10000)", _GRID),
    "vcpus": (_numbers, _FEW, "N,...", "numbers of vCPUs (default 1,2,4)", _GRID),
    "shards": (_numbers, _FEW, "N,...", "numbers of shards (default 1,2,4)", _GRID),
    "handler": (_durations, (0, 1000, 10_000), "TIME,...", HANDLER, _GRID),
    "python": (str, "", "PROGRAM", PYTHON, "peers report"),
    "only": (_names, (), "NAME,...", "these peers alone", "peers"),
    "from": (str, [], "FILE", "show this run, do not measure (may be repeated)", "report"),
    "output": (str, "shardio-report.html", "FILE", "default shardio-report.html", "report"),
    "validate": (str, [], "FILE", "a scaling run of another machine, to hold the bound against", "report"),
}
"""Each option: its type, default, metavar and help, and the suites that have it. A list is one that may be
repeated.
"""
