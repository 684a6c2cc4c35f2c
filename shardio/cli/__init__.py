"""The `shardio` command: a table of subcommands, each in a module of its own, imported when it is chosen.

A subcommand's module has `add_arguments(parser)` and `execute(arguments) -> exit status`. To add one, add its
line to `COMMANDS`. Whatever a user can get wrong ends as one line on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import errno
import signal
import sys
import textwrap
import traceback
from collections.abc import Container, Sequence
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

from shardio.cli.streams import drain, give_up, open_closed, say
from shardio.errors import ShardioError
from shardio.spelling import nearest
from shardio.version import full_version

EXIT_USER_ERROR = 2
# What a system call lacked, where the library has not said it in its own words.
HINTS = {
    errno.EMFILE: "raise the limit on open files: ulimit -n 1024",
    errno.ENFILE: "raise the host's limit on open files: sysctl fs.file-max",
    errno.ENOMEM: "free memory on the host, or give the guest less",
    errno.ENOSPC: "free space where the output goes",
    errno.EAGAIN: "raise the limit on processes: ulimit -u",
}


class Command(NamedTuple):
    """A subcommand: the module that holds it, and its line in the help."""

    module: str
    help: str


COMMANDS: dict[str, Command] = {
    "run": Command("shardio.cli.run", "run a machine: a configuration file, a flat image or a firmware"),
    "demo": Command("shardio.cli.demo", "run an SMP guest of our own and check its result on the host"),
    "bench": Command(
        "shardio.cli.bench", "measure how dispatch performs and scales, against floor and peers"
    ),
    "record": Command("shardio.cli.record", "run a machine and record what its devices are asked and answer"),
    "replay": Command("shardio.cli.replay", "feed a recording to a device, and compare what it answers"),
    "ls": Command("shardio.cli.ls", "list the machines that run"),
    "top": Command("shardio.cli.top", "show live what a running machine does"),
    "screen": Command("shardio.cli.screen", "print the text on a running machine's screen"),
    "pause": Command("shardio.cli.tell", "park the vCPUs of a running machine"),
    "resume": Command("shardio.cli.tell", "let the vCPUs of a paused machine run again"),
    "reload": Command("shardio.cli.reload", "have devices run what their files say now, without a reboot"),
    "stop": Command("shardio.cli.tell", "stop a running machine"),
    "doctor": Command("shardio.cli.doctor", "tell what this host lacks for full speed, with the hint"),
    "completion": Command("shardio.cli.completion", "print a shell's completion of all this"),
    "man": Command("shardio.cli.man", "print the manual page"),
}


STATUSES = (
    ("0", "done; of run: the machine came to an orderly end, or was left"),
    ("1", "run, demo: the guest failed; bench: a gate was missed; doctor: machines run slower than need be"),
    ("2", "a mistake in the command line or a configuration, or what the host lacks; a line says more"),
    ("124", "run: the time of --timeout was over"),
    ("128+N", "signal N ended it: 130 for Ctrl-C, 143 for SIGTERM, 141 where nobody read the output"),
    ("other", "run: what the guest wrote to an exit device"),
)
"""Exit statuses, for the help and the manual page."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong with the command line and ends the program with status 2."""
        self.exit(EXIT_USER_ERROR, f"shardio: error: {message} (see `{self.prog} --help`)\n")


class Version(argparse.Action):
    """Prints the version and leaves. Git is asked for the commit only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Ends the program with status 0."""
        print(f"shardio {full_version()}")
        parser.exit(0)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (that of the process by default) and returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        open_closed()
        status = _execute(words)
        sys.stdout.flush()
    except ShardioError as error:
        if "--debug" in words:
            traceback.print_exception(error)
        return complain(error.message, error.hint)
    except BrokenPipeError:
        give_up(sys.stdout)  # its reader is gone: no word about it
        return 128 + signal.SIGPIPE
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        drain(sys.stdout)  # it may be what failed
        return complain(what, HINTS.get(error.errno or 0, "correct the path, or its permissions"))
    except (ImportError, MemoryError) as error:
        text = f"{type(error).__name__}: {error}".rstrip(": ")
        return complain(text, "install shardio whole, and free memory or raise its limit (ulimit -v)")
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return status


def complain(what: str, hint: str = "") -> int:
    """Prints a user error as one line on standard error and returns the exit status for it."""
    say(f"shardio: error: {what}{f' ({hint})' if hint else ''}")
    return EXIT_USER_ERROR


def _execute(words: Sequence[str]) -> int:
    try:
        arguments = _parse(words)
        status: int = arguments.execute(arguments)
    except SystemExit as leaving:  # argparse has said what there is to say
        return leaving.code if isinstance(leaving.code, int) else EXIT_USER_ERROR
    return status


def command_parsers(chosen: Container[str]) -> tuple[Parser, dict[str, Parser]]:
    """The parser of the command line, and those of the subcommands, by name: those `chosen` with their
    arguments, for which their modules are imported.
    """
    parser = Parser(
        prog="shardio",
        description="Answers a virtual machine's device accesses in other processes.",
        epilog="exit status:\n"
        + "\n".join(
            textwrap.fill(text, 79, initial_indent=f"  {status:<6}", subsequent_indent=" " * 8)
            for status, text in STATUSES
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=Version, help="show the version, and the commit if it is known")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    found: dict[str, Parser] = {}
    for name, command in COMMANDS.items():
        found[name] = subparser = subparsers.add_parser(name, help=command.help, allow_abbrev=False)
        if name in chosen:
            module = import_module(command.module)
            subparser.description = module.__doc__
            subparser.formatter_class = argparse.RawDescriptionHelpFormatter
            module.add_arguments(subparser)
            subparser.set_defaults(execute=module.execute, command=name)
    return parser, found


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """Builds the parser, with the arguments of the chosen subcommand alone, and applies it."""
    chosen = next((word for word in words if not word.startswith("-")), None)
    parser, subparsers = command_parsers((chosen,) if chosen is not None else ())
    if chosen is not None and chosen not in COMMANDS:
        parser.error(f'unknown command "{chosen}": {nearest(chosen, COMMANDS) or " or ".join(COMMANDS)}')
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        options = _options(subparsers[chosen]) if chosen is not None else []
        hint = nearest(unknown[0].partition("=")[0], options)
        parser.error(f"unknown argument {unknown[0]}{f': {hint}' if hint else ''}")
    return arguments


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """Every option of a parser and of its own subcommands."""
    found: list[str] = []
    for action in parser._actions:
        found += action.option_strings
        for inner in action.choices.values() if isinstance(action.choices, dict) else ():
            found += _options(inner)
    return found
