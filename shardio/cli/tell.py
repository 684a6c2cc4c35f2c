"""Tells a running machine to pause, to resume or to stop.

`pause` returns when every vCPU is parked between two exits, and `stop` when the machine has stopped. A
machine of `shardio run` that is stopped so ends with status 0, as by Ctrl-a x.
"""

from __future__ import annotations

import argparse

from shardio.control import client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The commands' options."""
    parser.add_argument(
        "machine", nargs="?", metavar="NAME|PID", help="which one; may be left out where only one runs"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Tells it; returns the exit status."""
    entry = client.find(arguments.machine)
    if arguments.command == "stop":
        client.stop(entry)
    else:
        client.ask(entry, arguments.command)
    return 0
