"""Has devices of a running machine run what their files say now; the guest is not rebooted.

The shards that hold them are replaced, with all their devices. A device begins anew, but for what outlives
its shard: what its `state_type` names, and its persistent memory. Where a file cannot be loaded, the error is
told and its shard goes on as it was.
"""

from __future__ import annotations

import argparse

from shardio.control import client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "devices", nargs="*", metavar="DEVICE", help="a device by its name; without any, all of them"
    )
    parser.add_argument(
        "--machine", metavar="NAME|PID", help="which one; may be left out where only one runs"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Tells it; returns the exit status."""
    client.reload(client.find(arguments.machine), arguments.devices)
    return 0
