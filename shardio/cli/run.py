"""Runs a machine until its guest ends it: from a configuration file, a kernel, a firmware or a flat image.

The first serial device is on the terminal: Ctrl-a x leaves, Ctrl-a h helps.

exit status:
  the guest's, which it wrote to an exit device; else
  0        an orderly end: halted, reset, powered off, left by Ctrl-a x, shardio stop or --expect
  1        the guest failed, or what --expect waits for did not come
  2        a mistake in the command line or the configuration, or something that the host lacks
  124      the time of --timeout was over
  128 + N  signal N ended it

examples:
  shardio run machine.toml
  shardio run --image guest.bin --entry 0x1000 --vcpus 2 --memory 64M
  shardio run --image guest.bin --device 'shardio.devices:Uart16550,pio=0x3f8,irq=4'
  shardio run --kernel vmlinux --initrd initrd.img --append 'console=ttyS0 panic=-1' --memory 256M
  shardio run --payload grub.elf
  shardio run --firmware bios.bin --vcpus 2 --shards 2
  shardio run --firmware bios.bin --cpu soft
  shardio run --kernel vmlinux --console unix:/tmp/console
  shardio run --image guest.bin --trace all --trace-file trace.json
  shardio run --image guest.bin --expect 'name? ' --send 'world\\r' --expect 'hello world' --timeout 10
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import sys
from typing import TYPE_CHECKING

import msgspec

from shardio.cli.far_console import FarConsole
from shardio.cli.prompt import ConsoleLender
from shardio.cli.run_end import STDOUT, TIMED_OUT, exit_status, late_reports, print_table, warn_of_quarantine
from shardio.cli.run_machine import (
    COMMAND_LINE,
    configuration,
    default_name,
    device_folders,
    on_terminal,
    with_console,
)
from shardio.cli.run_options import add_arguments
from shardio.cli.script import Script
from shardio.cli.stop import StopRequested, StopRequests
from shardio.cli.streams import say, say_lines
from shardio.cli.summary import summary
from shardio.cli.terminal import RawMode, SerialInput
from shardio.cli.terminal_size import SizeWatch, tell_consoles
from shardio.config import as_toml, build, load_tables
from shardio.errors import ConfigError
from shardio.shard.log import log_to_stderr

if TYPE_CHECKING:
    from shardio.dispatcher import ExitInfo
    from shardio.dispatcher.tracing import Trace
    from shardio.machine import Machine

__all__ = ["add_arguments", "execute"]

STDIN = 0


def execute(arguments: argparse.Namespace) -> int:
    """Builds the machine, runs it and prints the table; returns the exit status."""
    if arguments.log_level is not None:
        log_to_stderr(logging.getLevelNamesMapping()[arguments.log_level.upper()], os.getpid())
    sys.path[:0] = [folder for folder in device_folders(arguments.config) if folder not in sys.path]
    # Signals are taken over first: an exception that a handler raises inside the decoder may crash it.
    with StopRequests() as stop:
        try:
            with stop.armed():  # reading may wait for somebody
                tables = load_tables(arguments.config) if arguments.config is not None else {}
        except StopRequested:
            return exit_status(None, stop)
        if arguments.console != "stdio" and arguments.script:
            hint = "leave --console out, or let a program talk to it there"
            raise ConfigError(COMMAND_LINE, "--expect and --send are for the console on stdio", hint)
        config = on_terminal(configuration(arguments, tables))
        if arguments.save_config:
            sys.stdout.write(as_toml(config))
            return 0
        with contextlib.ExitStack() as streams:
            if arguments.console != "stdio":
                far = streams.enter_context(FarConsole(arguments.console))
                config = with_console(config, far)
                say(f"shardio: the console is {far.path}")
            script = streams.enter_context(Script(arguments.script, stop.leave)) if arguments.script else None
            stdin = lender = None
            if arguments.console == "stdio":
                source = STDIN if script is None else script.keys
                raw = streams.enter_context(RawMode(source))
                serial = streams.enter_context(SerialInput(source, stop.leave))
                stdin, lender = serial.reader, ConsoleLender(raw, serial)
            with build(config, stdin=stdin, terminal=lender) as vm:
                vm.control(arguments.name or default_name(arguments), stop=stop.leave)
                trace = _trace(vm, arguments)
                if arguments.metrics is not None:
                    at = vm.metrics(arguments.metrics).address
                    if arguments.metrics != at:
                        say(f"shardio: metrics at http://{at}/metrics")
                _listen_for_gdb(vm, arguments, stop)
                if (recording := getattr(arguments, "recording", None)) is not None:
                    vm.record(recording, *arguments.recorded)
                profile = _profile(vm, arguments)
                ended = _run(vm, stop, arguments.timeout)
                late = ended is None and not stop.requested
                reports = late_reports(vm) if late else ()
                table = summary(vm.statistics())
    if not arguments.quiet:
        print_table(table)
    if profile is not None:
        say(f"shardio: profile of {arguments.profile}: python -m pstats {profile}")
    warn_of_quarantine(ended)
    if trace is not None:
        _warn_of_trace(trace)
    if stop.signal is None and script is not None and (complaint := script.complaint()):
        say(f"shardio: {complaint}")
        return 1
    if late:
        say(f"shardio: the guest had not ended after {arguments.timeout:g} s")
        for report in () if arguments.quiet else reports:
            say_lines(report.lines())
        return TIMED_OUT
    if ended is None or ended.report is None or stop.signal is not None:
        return exit_status(ended, stop, triple_fault_ok=arguments.triple_fault_ok)
    # Its detail has the registers, which the report has, too.
    brief = msgspec.structs.replace(ended, detail=ended.detail.partition("\n")[0])
    status = exit_status(brief, stop, triple_fault_ok=arguments.triple_fault_ok)
    say_lines(ended.report.lines())
    return status


def _run(vm: Machine, stop: StopRequests, timeout: float | None) -> ExitInfo | None:
    """Runs the machine to its end and stops it; None when it was stopped from outside or by `timeout`."""
    try:
        with stop.armed():
            vm.start()
            with SizeWatch(STDOUT, functools.partial(tell_consoles, vm)):
                ended = vm.wait(timeout)
    except StopRequested:
        ended = None
    vm.stop()
    return ended


def _trace(vm: Machine, arguments: argparse.Namespace) -> Trace | None:
    if arguments.trace is None:
        if arguments.trace_file is not None:
            raise ConfigError(COMMAND_LINE, "--trace-file without --trace", "say what: --trace all")
        return None
    what = [name.strip() for name in arguments.trace.split(",")]
    return vm.trace(*what, file=arguments.trace_file or sys.stderr)


def _warn_of_trace(trace: Trace) -> None:
    if trace.error is not None:
        say(f"shardio: the trace ends early: {trace.error}")
    elif trace.lost:
        say(f"shardio: the trace lacks {trace.lost} records, which came faster than they were collected")


def _listen_for_gdb(vm: Machine, arguments: argparse.Namespace, stop: StopRequests) -> None:
    if arguments.gdb_wait and arguments.gdb is None:
        hint = "say where the debugger comes: --gdb :1234"
        raise ConfigError(COMMAND_LINE, "--gdb-wait without --gdb", hint)
    if arguments.gdb is not None:
        server = vm.gdb(arguments.gdb, wait=arguments.gdb_wait, stop=stop.leave)
        waits = ", and the guest waits for it" if arguments.gdb_wait else ""
        say(f"shardio: a debugger can come{waits}: (gdb) target remote {server.address}")


def _profile(vm: Machine, arguments: argparse.Namespace) -> str | None:
    if arguments.profile is None:
        if arguments.profile_file is not None:
            hint = "say which device: --profile NAME"
            raise ConfigError(COMMAND_LINE, "--profile-file without --profile", hint)
        return None
    file: str = arguments.profile_file or f"{arguments.profile}.pstats"
    vm.profile(arguments.profile, file)
    return file
