"""Prints the text on the screen of a running machine that has a VGA, `shardio.devices:VgaText` say."""

from __future__ import annotations

import argparse

from shardio.control import client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "machine", nargs="?", metavar="NAME|PID", help="which one; may be left out where only one runs"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Prints it; returns the exit status."""
    print(client.screen(client.find(arguments.machine)))
    return 0
