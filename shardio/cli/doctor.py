"""Tells what this host lacks for shardio at full speed, each with its hint.

A machine's vCPUs are run by KVM or by the software CPU: without KVM shardio runs degraded, and only where
neither works it cannot run machines.

Exit status: 0 when nothing is missing, 1 when shardio runs degraded, 2 when it cannot run machines here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shardio.cli.checks import Finding, State, findings
from shardio.cli.summary import console

EXIT_STATUS = {State.OK: 0, State.NOTE: 0, State.DEGRADED: 1, State.UNUSABLE: 2}
STYLE = {State.OK: "green", State.NOTE: "cyan", State.DEGRADED: "yellow", State.UNUSABLE: "bold red"}


class Report(msgspec.Struct, frozen=True):
    """What `--json` prints: the worst state, its exit status, and every finding."""

    status: State
    exit_status: int
    checks: tuple[Finding, ...]


def report(found: Sequence[Finding]) -> Report:
    """Sums the findings up: a note alone leaves the host ok."""
    exit_status = max((EXIT_STATUS[finding.state] for finding in found), default=0)
    status = (State.OK, State.DEGRADED, State.UNUSABLE)[exit_status]
    return Report(status, exit_status, tuple(found))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def execute(arguments: argparse.Namespace) -> int:
    """Checks the host and prints what was found; returns the exit status."""
    found = report(findings())
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        show(found, console(sys.stdout))
    return found.exit_status


def show(found: Report, to: Console) -> None:
    """Prints the findings as a table, a hint under what needs one."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in found.checks:
        table.add_row(Text(finding.name), Text(finding.state, STYLE[finding.state]), Text(finding.detail))
        if finding.hint:
            table.add_row("", "", Text(f"hint: {finding.hint}"))
    to.print(table)
    summary = {
        State.OK: "nothing is missing",
        State.DEGRADED: "shardio runs here, slower or without what is marked degraded",
        State.UNUSABLE: "shardio cannot run machines here: do what the hints beside `unusable` say",
    }
    to.print(Text(summary[found.status], STYLE[found.status]))
