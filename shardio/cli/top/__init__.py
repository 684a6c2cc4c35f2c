"""Shows what a running machine does, live: its vCPUs, devices and shards.

The machine is named by its name or pid (see `shardio ls`); it may be left out where only one runs. It is
asked through its control socket, and no vCPU or shard notices. Leaving ends with status 0, and so does the
machine's end, which one line tells of.

keys:
{keys}

columns:
{columns}
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import time

from shardio.cli.top.sample import sample
from shardio.cli.top.view import KEYS, MEANINGS, once
from shardio.control import client
from shardio.errors import MachineError

assert __doc__ is not None
__doc__ = __doc__.format(
    keys="\n".join(f"  {key:<9} {text}" for key, text in KEYS),
    columns="\n".join(f"  {text}" for text in MEANINGS),
)
WIDTH = 120
"""Columns into a file or a pipe."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "machine", nargs="?", metavar="NAME|PID", help="which one; may be left out where only one runs"
    )
    parser.add_argument(
        "--interval", type=interval, default=1.0, metavar="SECONDS", help="between two looks (default 1)"
    )
    parser.add_argument("--once", action="store_true", help="print it once, over one interval, and leave")
    parser.add_argument(
        "--json", action="store_true", help="with --once: as a JSON object (docs/how-to/operating.md)"
    )


def interval(text: str) -> float:
    """Seconds between two looks: from a hundredth of a second to an hour."""
    value = float(text)
    if not (0.01 <= value <= 3600 and math.isfinite(value)):
        raise ValueError(text)
    return value


def execute(arguments: argparse.Namespace) -> int:
    """Shows it; returns the exit status."""
    if arguments.json and not arguments.once:
        raise MachineError("--json prints one sample", "give --once, too")
    entry = client.find(arguments.machine)
    if not arguments.once:
        from shardio.cli.top import terminal  # curses, which not every Python has

        if how := terminal.run(entry, arguments.interval):
            print(f"shardio: {how}")
        return 0
    before = client.status(entry)
    time.sleep(arguments.interval)
    found = sample(before, client.status(entry))
    if arguments.json:
        from shardio.control.messages import json

        print(json(found))
        return 0
    width = shutil.get_terminal_size((WIDTH, 0)).columns if sys.stdout.isatty() else WIDTH
    print("\n".join(once(found, width)))
    return 0
