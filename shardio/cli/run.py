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
import math
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from shardio import pc
from shardio.cli.far_console import FarConsole
from shardio.cli.prompt import TerminalDesk
from shardio.cli.script import AddStep, Script
from shardio.cli.stop import StopRequested, StopRequests
from shardio.cli.streams import give_up, say, say_lines
from shardio.cli.summary import console, summary
from shardio.cli.terminal import RawMode, SerialInput
from shardio.cli.terminal_size import SizeWatch, tell_consoles
from shardio.config import (
    MachineConfig,
    as_toml,
    build,
    find_firmware,
    load_tables,
    machine_config,
    with_devices,
)
from shardio.errors import ConfigError, ShardioError
from shardio.options import takes_option
from shardio.shard.loading import resolve
from shardio.shard.log import log_to_stderr

if TYPE_CHECKING:
    from rich.console import Group

    from shardio.dispatcher import ExitInfo
    from shardio.dispatcher.tracing import Trace
    from shardio.machine import Machine
    from shardio.vcpu.report import VcpuReport

STDIN, STDOUT, STDERR = range(3)
COMMAND_LINE = "command line"
LOG_LEVELS = ("debug", "info", "warning", "error")
TIMED_OUT = 124
"""The status that timeout(1) of the coreutils gives."""
# Ends that the guest chose, and so successes without a status of its own. The others get a line.
QUIET_ENDS = {"reset", "halted", "stopped"}
ORDERLY_ENDS = {*QUIET_ENDS, "system event"}
TRIPLE_FAULT = "shutdown"
# One key=value of --device; a comma inside quotes or brackets does not end it.
DEVICE_PART = re.compile(r"""(?:[^,"\[]|"(?:\\.|[^"\\])*"|\[[^\]]*\])+""")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("config", nargs="?", metavar="CONFIG.toml", help="the machine's configuration file")
    parser.add_argument("--image", metavar="FILE", help="load this flat binary; brings COM1 and exit port")
    parser.add_argument("--at", metavar="ADDRESS", help="where the image goes (default 0x1000)")
    parser.add_argument("--entry", metavar="ADDRESS", help="where vCPU 0 starts (default: at the image)")
    parser.add_argument("--mode", help="how vCPU 0 starts: real (default), protected or long")
    parser.add_argument("--firmware", metavar="FILE", help="boot this BIOS image; brings the devices of a PC")
    parser.add_argument(
        "--kernel", metavar="FILE",
        help="boot this kernel: Linux (vmlinux, bzImage), PVH, Multiboot or another ELF; "
        "brings the devices of a PC",
    )  # fmt: skip
    parser.add_argument("--initrd", metavar="FILE", help="the kernel's initrd, or its first module")
    parser.add_argument("--append", metavar="TEXT", help="the kernel's command line")
    parser.add_argument("--payload", metavar="FILE", help="boot this coreboot payload; brings them too")
    parser.add_argument(
        "--disk", action="append", dest="disks", metavar="FILE",
        help="a raw disk image: of an IDE disk, or for a kernel of a virtio disk on PCI (may be repeated)",
    )  # fmt: skip
    parser.add_argument("--cdrom", metavar="FILE", help="a raw image of a disc, in an IDE drive")
    parser.add_argument(
        "--net", action="append", dest="nets", metavar="HOW",
        help="a virtio network card on PCI: tap:NAME, or pair:OWN,PEER, two socket paths of which another "
        "machine has the same the other way round (may be repeated)",
    )  # fmt: skip
    parser.add_argument("--vcpus", type=int, metavar="N", help="how many vCPUs (default 1)")
    parser.add_argument("--memory", metavar="SIZE", help="guest RAM, such as 64M (the default)")
    parser.add_argument("--shards", type=int, metavar="N", help="how many device processes to spread over")
    parser.add_argument(
        "--device", action="append", default=[], metavar="TYPE,KEY=VALUE,...",
        help="add a device: its dotted path, then the keys of a [[device]] table (may be repeated)",
    )  # fmt: skip
    parser.add_argument("--no-platform", action="store_true", help="bring no devices but those named")
    parser.add_argument(
        "--cpu", metavar="KIND",
        help="what runs the vCPUs: kvm, soft or auto, which is KVM where it works (the default)",
    )  # fmt: skip
    parser.add_argument("--no-irqchip", action="store_true", help="no in-kernel interrupt controller")
    parser.add_argument("--no-pin", action="store_true", help="leave processes to the scheduler")
    parser.add_argument(
        "--console", metavar="WHERE", default="stdio",
        help="where the first serial device is: stdio (the default), pty (a new pseudo-terminal, whose path "
        "is told) or unix:PATH (a socket for one client at a time)",
    )  # fmt: skip
    parser.add_argument(
        "--expect", action=AddStep, dest="script", metavar="TEXT", default=[],
        help="wait until the guest prints TEXT, which may have \\n \\r \\t \\e \\x1b; the last step "
        "ends the machine. What did not come is a failure",
    )  # fmt: skip
    parser.add_argument(
        "--send", action=AddStep, dest="script", metavar="TEXT", default=[],
        help="then type TEXT on the console, instead of standard input (both may be repeated)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=seconds, metavar="SECONDS",
        help="stop the machine when it has run for so long; the status is then 124",
    )  # fmt: skip
    parser.add_argument(
        "--save-config", action="store_true",
        help="print the machine, its platform's devices included, as a configuration file, and run nothing",
    )  # fmt: skip
    parser.add_argument(
        "-v", "--verbose", action="store_const", dest="log_level", const="info",
        help="tell on standard error what happens, as it happens: --log-level info",
    )  # fmt: skip
    parser.add_argument(
        "--log-level", choices=LOG_LEVELS,
        help="write the log to standard error from this level on, with machine (pid), shard and device",
    )  # fmt: skip
    parser.add_argument(
        "--trace", metavar="WHAT",
        help="trace accesses, interrupts and what becomes of workers and shards: all, unclaimed (what no "
        "device claims), or devices by name, with commas between them",
    )  # fmt: skip
    parser.add_argument(
        "--trace-file", metavar="FILE",
        help="where the trace goes: lines of text (default: to standard error), or, if FILE ends in .json, a "
        "file that Perfetto (ui.perfetto.dev) opens",
    )  # fmt: skip
    parser.add_argument(
        "--name", metavar="NAME",
        help="what shardio ls, pause, resume and stop call it (default: after the file that it runs)",
    )  # fmt: skip
    parser.add_argument(
        "--metrics", metavar="ADDRESS",
        help="give Prometheus metrics at unix:PATH or 127.0.0.1:PORT (port 0: any, which a line tells)",
    )  # fmt: skip
    parser.add_argument(
        "--gdb", metavar="WHERE",
        help="let GDB reach the guest at unix:PATH, :PORT (of this host alone) or HOST:PORT",
    )  # fmt: skip
    parser.add_argument(
        "--gdb-wait", action="store_true", help="the guest's first instruction waits for the debugger"
    )
    parser.add_argument(
        "--profile", metavar="DEVICE", help="profile the handlers of this device, by its name, with cProfile"
    )
    parser.add_argument(
        "--profile-file", metavar="FILE", help="what is profiled, for pstats (default: DEVICE.pstats)"
    )
    parser.add_argument("--quiet", action="store_true", help="no table at the end")
    parser.add_argument("--debug", action="store_true", help="tell an error with its tracebacks")
    parser.add_argument(
        "--triple-fault-ok", action="store_true", help="a triple fault is how the guest resets: no failure"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Builds the machine, runs it and prints the table; returns the exit status."""
    if arguments.log_level is not None:
        log_to_stderr(logging.getLevelNamesMapping()[arguments.log_level.upper()], os.getpid())
    sys.path[:0] = [folder for folder in _device_folders(arguments.config) if folder not in sys.path]
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
            stdin = desk = None
            if arguments.console == "stdio":
                source = STDIN if script is None else script.keys
                raw = streams.enter_context(RawMode(source))
                serial = streams.enter_context(SerialInput(source, stop.leave))
                stdin, desk = serial.reader, TerminalDesk(raw, serial)
            with build(config, stdin=stdin, terminal=desk) as vm:
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
        _tell(table)
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


def default_name(arguments: argparse.Namespace) -> str:
    """What a machine is called that was given no name: its file's name, as far as a name can hold it.

    >>> default_name(argparse.Namespace(config="/etc/my router.toml"))
    'my-router'
    """
    given = vars(arguments)
    files = (given.get(key) for key in ("config", "kernel", "payload", "firmware", "image"))
    stem = Path(next((file for file in files if file), "machine")).stem
    return re.sub(r"[^A-Za-z0-9._-]", "-", stem)[:32] or "machine"


def seconds(text: str) -> float:
    """A time in seconds, above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError(text)
    return value


def warn_of_quarantine(ended: ExitInfo | None) -> None:
    """A line on standard error where devices were quarantined: the guest has seen all-ones there."""
    if ended is not None and ended.quarantined:
        names = ", ".join(ended.quarantined)
        say(f"shardio: quarantined, because their shards died of it: {names} (see their tracebacks above)")


def _tell(table: Group) -> None:
    """Prints the table where somebody takes it: the status is the guest's, whoever listens."""
    try:
        if os.isatty(STDOUT) and os.isatty(STDERR):
            sys.stderr.write("\r\n")  # the guest's last line may have no end
        console(sys.stderr).print(table)
    except OSError:
        give_up(sys.stderr)


def configuration(arguments: argparse.Namespace, tables: Mapping[str, Any]) -> MachineConfig:
    """The configuration that the command line asks for: the file's `tables`, with its options in front."""
    where, folder = COMMAND_LINE, Path()
    if arguments.config is not None:
        where, folder = arguments.config, Path(arguments.config).parent
    machine = {**tables.get("machine", {}), **_machine_options(arguments)}
    devices = [*tables.get("device", []), *map(parse_device, arguments.device)]
    config = machine_config({**tables, "machine": machine, "device": devices}, where=where, folder=folder)
    if not (config.image or config.firmware or config.kernel or config.payload):
        hint = "give a kernel, a payload, a firmware or an image, here or in CONFIG.toml"
        raise ConfigError(where, "nothing to run", hint)
    if arguments.image is not None and config.platform:
        return with_devices(config, pc.console_devices())
    return config


def on_terminal(config: MachineConfig) -> MachineConfig:
    """The configuration with its first serial device on the terminal, unless a device has that already."""
    if any(device.options.get("input") == "stdin" for device in config.devices):
        return config
    devices = list(config.devices)
    for i, device in enumerate(devices):
        free = "input" not in device.options
        if free and takes_option(resolve(device.type), "input"):
            devices[i] = msgspec.structs.replace(device, options={**device.options, "input": "stdin"})
            break
    return msgspec.structs.replace(config, devices=tuple(devices))


def with_console(config: MachineConfig, far: FarConsole) -> MachineConfig:
    """The configuration whose device on the terminal is at that console instead.

    Raises ConfigError where none is.
    """
    devices = list(config.devices)
    for i, device in enumerate(devices):
        if device.options.get("input") == "stdin":
            ends = {"input": f"fd:{far.reader}", "output": f"fd:{far.writer}"}
            devices[i] = msgspec.structs.replace(
                device,
                options={**device.options, **ends},
                pass_fds=(*device.pass_fds, far.reader, far.writer),
            )
            return msgspec.structs.replace(config, devices=tuple(devices))
    hint = "add a device with an input, or leave --console out"
    raise ConfigError(COMMAND_LINE, "--console, and no serial device", hint)


def parse_device(text: str) -> dict[str, Any]:
    """The `[[device]]` table of one --device: values are TOML where they can be, else text.

    Raises ConfigError for a part that is no key=value.

    >>> parse_device("shardio.devices:Uart16550,pio=0x3f8,irq=4,output=file:/tmp/log")
    {'type': 'shardio.devices:Uart16550', 'pio': 1016, 'irq': 4, 'output': 'file:/tmp/log'}
    """
    kind, *parts = DEVICE_PART.findall(text) or [""]
    table: dict[str, Any] = {"type": kind}
    for part in parts:
        key, equals, value = part.partition("=")
        if not (equals and key.strip()):
            raise ConfigError(f"--device {text}", f'"{part}" is no KEY=VALUE', "write pio=0x3f8,irq=4 say")
        table[key.strip()] = _value(value)
    return table


def exit_status(
    ended: ExitInfo | None, stop: StopRequests, *, triple_fault_ok: bool = False
) -> int:
    """The status of the command: the guest's own, else 0 for a machine that was left or came to its end.

    A signal gives 128 and its number, as a shell would. Any other end is a failure: a line says which.
    """
    if stop.signal is not None:
        return 128 + stop.signal
    if ended is None:
        return 0
    if ended.status is not None:
        return ended.status
    if ended.reason not in QUIET_ENDS:
        which = "" if ended.vcpu is None else f"vCPU {ended.vcpu}: "
        more = f": {ended.detail}" if ended.detail else ""
        say(f"shardio: {which}{ended.reason}{more}")
    orderly = ended.reason in ORDERLY_ENDS or (triple_fault_ok and ended.reason == TRIPLE_FAULT)
    return 0 if orderly else 1


def late_reports(vm: Machine) -> tuple[VcpuReport, ...]:
    """Where the vCPUs of a stopped machine are, but for those that never began."""
    found = []
    for index in range(vm.vcpus):
        with contextlib.suppress(ShardioError):  # one that was killed in the midst of a pause
            found.append(vm.examine(index))
    return tuple(report for report in found if report.mp_state != "uninitialized")


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


def _machine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keys of `[machine]` that the command line gives; its paths are from the current folder."""
    keys = ("at", "cpu", "entry", "mode", "vcpus", "memory", "shards")
    given = {key: getattr(arguments, key) for key in keys}
    given |= {"command_line": arguments.append, "nets": arguments.nets}
    if arguments.disks is not None:
        given["disks"] = [os.path.abspath(path) for path in arguments.disks]
    for key in ("image", "kernel", "initrd", "payload", "cdrom"):
        if (path := getattr(arguments, key)) is not None:
            given[key] = os.path.abspath(path)
    if arguments.firmware is not None:
        given["firmware"] = os.path.abspath(find_firmware(arguments.firmware))
    if arguments.no_platform:
        given["platform"] = False
    if arguments.no_irqchip:
        given["irqchip"] = False
    if arguments.no_pin:
        given["pin"] = False
    return {key: value for key, value in given.items() if value is not None}


def _device_folders(config: str | None) -> list[str]:
    """Where a device's module may lie besides installed packages: the current folder, and the file's."""
    return [os.getcwd(), *([str(Path(config).resolve().parent)] if config else [])]


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
