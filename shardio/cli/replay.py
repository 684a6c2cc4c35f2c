"""Feeds a recording to a device, without a machine and at full speed, and compares what it answers.

The device is made with the options that it had when it was recorded, and with those given here. Its console,
where it has one, goes nowhere. The first access that goes another way is told on standard output, and the
exit status is 1; it is 0 where all are as recorded. Without --device, it lists what the recording holds.

examples:
  shardio replay run.rec
  shardio replay run.rec --device mydevices:Counter
  shardio replay run.rec --device 'shardio.devices:Uart16550,output=file:/tmp/log' --name com1
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import time
from typing import Any

from shardio.cli.run_machine import parse_device
from shardio.errors import DeviceOptionError, MachineError
from shardio.options import takes_option
from shardio.recording.format import Life, Recording, load
from shardio.recording.replay import device_named, replay_device
from shardio.shard.loading import resolve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("recording", metavar="FILE", help="what `shardio record` has written")
    parser.add_argument(
        "--device", metavar="MODULE:CLASS,KEY=VALUE,...", help="the device, and options that it is made with"
    )
    parser.add_argument(
        "--name", metavar="NAME",
        help="which device of the recording it stands for (default: the one of its class, or the only one)",
    )  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="tell an error with its tracebacks")


def execute(arguments: argparse.Namespace) -> int:
    """Replays, or lists; returns the exit status."""
    recording = load(arguments.recording)
    if arguments.device is None:
        _list(recording)
        return 0
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    table = parse_device(arguments.device)
    kind = table.pop("type")
    factory = resolve(kind)
    named = f"{getattr(factory, '__module__', '')}:{getattr(factory, '__qualname__', '')}"
    name = arguments.name or device_named(recording, named)

    def make(life: Life) -> Any:
        options = life.made.options | table
        try:
            options |= _without_terminal(factory, options)
            return factory(**options)
        except (TypeError, DeviceOptionError) as error:
            raise MachineError(
                f"{kind} cannot be made with the recorded options: {error}", "give others: KEY=VALUE"
            ) from error

    begin = time.monotonic()
    outcome = replay_device(recording.lives(name), make)
    if outcome.difference is not None:
        print(f"{name}: {outcome.difference}")
        return 1
    rate = outcome.accesses / max(time.monotonic() - begin, 1e-9)
    print(f"{name}: {outcome.accesses} accesses as recorded, {rate:,.0f} a second")
    return 0


def _without_terminal(factory: Any, options: dict[str, Any]) -> dict[str, str]:
    """What a console's streams are instead of this command's own."""
    found = {}
    streams = (("output", ("stdout", "stderr", "pty"), "null"), ("input", ("stdin",), "none"))
    for name, own, nowhere in streams:
        if takes_option(factory, name):
            default = inspect.signature(factory).parameters[name].default
            if options.get(name, default) in own:
                found[name] = nowhere
    return found


def _list(recording: Recording) -> None:
    for name, lives in recording.devices.items():
        accesses = sum(life.accesses for life in lives)
        again = f", made {len(lives)} times" if len(lives) > 1 else ""
        print(f"{name}: {lives[0].made.kind}, {accesses} accesses{again}")
