"""Prints the manual page, in the language of man(7), from the commands' own help.

  read it      shardio man | man -l -
  install it   shardio man > ~/.local/share/man/man1/shardio.1
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from shardio.version import __version__

DESCRIPTION = """\
shardio runs virtual machines whose devices are Python objects in processes of their own, answers the device
accesses of vCPUs that other programs run, measures how that performs, and shows what running machines do.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has none."""


def execute(arguments: argparse.Namespace) -> int:
    """Prints it; returns the exit status."""
    print("\n".join(page()))
    return 0


def page() -> Iterator[str]:
    """The page's lines."""
    from shardio.cli import COMMANDS, STATUSES, command_parsers

    root, parsers = command_parsers(COMMANDS)
    yield f'.TH SHARDIO 1 "" "shardio {_text(__version__)}" "User Commands"'
    yield ".SH NAME"
    yield r"shardio \- answers a virtual machine's device accesses in other processes"
    yield ".SH SYNOPSIS"
    yield ".B shardio"
    yield r"[\fB\-\-help\fR] [\fB\-\-version\fR] \fICOMMAND\fR ..."
    yield ".SH DESCRIPTION"
    yield from _paragraphs(DESCRIPTION)
    yield ".SH OPTIONS"
    yield from _actions(root)
    yield ".SH COMMANDS"
    for name, parser in parsers.items():
        yield f".SS shardio {_text(name)}"
        yield from _paragraphs(parser.description or "")
        yield from _actions(parser)
    yield ".SH EXIT STATUS"
    for status, text in STATUSES:
        yield ".TP"
        yield f".B {_text(status)}"
        yield _text(text)
    yield ".SH SEE ALSO"
    yield ".BR man (1),"
    yield "and the documentation in docs/ of the sources."


def _actions(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A parser's arguments, those of its own subcommands behind these."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield ".PP"
                yield f"\\fB{_text(f'{parser.prog} {name}' if parser.prog != 'shardio' else name)}\\fR"
                if parser.prog == "shardio":
                    yield f"\\- {_text(_help_of(action, name))}"
                else:
                    yield ".RS"
                    yield from _actions(inner)
                    yield ".RE"
            continue
        value = _value(parser, action)
        names = ", ".join(f"\\fB{_text(name)}\\fR{value}" for name in action.option_strings)
        yield ".TP"
        yield names or value.strip()
        yield _text(" ".join((action.help or "").split())) or r"\&"


def _value(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """What stands for the value of an argument."""
    if action.option_strings and action.nargs == 0:
        return ""
    choices = ",".join(map(str, action.choices or ()))
    shown = action.metavar or (f"{{{choices}}}" if choices else action.dest.upper())
    return f" \\fI{_text(str(shown))}\\fR"


def _help_of(action: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> str:
    return next((each.help or "" for each in action._choices_actions if each.dest == name), "")


def _paragraphs(text: str) -> Iterator[str]:
    """A docstring: what is indented stays as it is, line by line."""
    filled = True
    for line in text.strip().splitlines():
        indented = line.startswith("  ")
        if indented is filled:
            yield ".nf" if indented else ".fi"
            filled = not indented
        yield _text(line) if line.strip() else ".PP"
    if not filled:
        yield ".fi"


def _text(text: str) -> str:
    r"""Text that troff takes for nothing else.

    >>> _text(".so a-b\\r"), _text("'x")
    ('\\&.so a\\-b\\er', "\\&'x")
    """
    shown = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{shown}" if shown.lstrip().startswith((".", "'")) else shown
