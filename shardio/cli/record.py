"""Runs a machine as `shardio run` does, and records what its devices are asked and answer.

The recording holds every access of each device with its answer, and the guest memory that a device reads
where its class says `record_dma = True`. `shardio replay` feeds it to a device without a machine; in a test
`shardio.testing.replay` does. The exit status is that of `shardio run`.

examples:
  shardio record -o run.rec machine.toml
  shardio record -o run.rec --devices com1,rtc --firmware bios.bin
"""

from __future__ import annotations

import argparse

from shardio.cli import run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options: those of `shardio run`, and where the recording goes."""
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", dest="recording", help="where the recording goes"
    )
    parser.add_argument(
        "--devices", metavar="NAME,...", default="", help="the devices to record (default: all)"
    )
    run.add_arguments(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the machine; returns its exit status."""
    arguments.recorded = [name.strip() for name in arguments.devices.split(",") if name.strip()]
    return run.execute(arguments)
