"""Lists the machines of this user that run on this host; all users' for root.

They are those of `shardio run`, and of programs that call `Machine.control()`. The exit status is 0, whether
any runs or not.
"""

from __future__ import annotations

import argparse
import sys

import msgspec
from rich.table import Table
from rich.text import Text

from shardio.cli.summary import console
from shardio.control.client import Entry, machines, status
from shardio.errors import MachineError

PATIENCE_S = 3.0
"""How long one machine's answer may take, before the next one is asked."""


class Row(msgspec.Struct, frozen=True):
    """One machine. `state`: as it says, or "silent" where it does not answer."""

    pid: int
    name: str
    state: str
    vcpus: int
    devices: int
    shards: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--json", action="store_true", help="print a list of JSON objects")


def execute(arguments: argparse.Namespace) -> int:
    """Prints the list; returns the exit status."""
    rows = [row for entry in machines() if (row := _row(entry)) is not None]
    if arguments.json:
        print(msgspec.json.encode(rows).decode())
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("pid", "name", "state"):
        table.add_column(column)
    for column in ("vCPUs", "devices", "shards"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in msgspec.structs.astuple(row)))
    console(sys.stdout).print(table)
    return 0


def _row(entry: Entry) -> Row | None:
    try:
        found = status(entry, PATIENCE_S)
    except MachineError:
        silent = Row(entry.pid, entry.name, "silent", 0, 0, 0)
        return silent if entry in machines() else None
    counts = found.statistics
    return Row(
        entry.pid, entry.name, found.state, len(counts.vcpus), len(counts.devices), len(counts.shards)
    )
