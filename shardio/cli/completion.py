"""Prints what a shell needs to complete `shardio`: its commands, their options, and the names of machines.

  bash   shardio completion bash > ~/.local/share/bash-completion/completions/shardio
  zsh    shardio completion zsh > "${fpath[1]}/_shardio"
  fish   shardio completion fish > ~/.config/fish/completions/shardio.fish

The script is made from the commands' own parsers; make it anew with a new release.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

SHELLS = ("bash", "zsh", "fish")
MACHINES = r"sed -n 's|.*@shardio/[0-9]*/||p' /proc/net/unix"
"""Machines that run, by name: their control sockets."""


class Option(NamedTuple):
    """An option: its spellings, its help, and whether a value follows; `choices`: which ones it takes."""

    names: tuple[str, ...]
    help: str
    takes_value: bool
    choices: tuple[str, ...]


class Words(NamedTuple):
    """What a command takes: options, and words in its first place; `machines`: that is a machine's name."""

    name: str
    help: str
    options: tuple[Option, ...]
    words: tuple[str, ...]
    machines: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("shell", choices=SHELLS, help="whose completion: bash, zsh or fish")


def execute(arguments: argparse.Namespace) -> int:
    """Prints the script; returns the exit status."""
    from shardio.cli import COMMANDS, command_parsers

    _, parsers = command_parsers(COMMANDS)
    found = [_command(name, COMMANDS[name].help, parser) for name, parser in parsers.items()]
    writer: Callable[[Sequence[Words]], Iterator[str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}[
        arguments.shell
    ]
    print("\n".join(writer(found)))
    return 0


def _command(name: str, text: str, parser: argparse.ArgumentParser) -> Words:
    """A command; what its own subcommands take is taken together."""
    options: dict[tuple[str, ...], Option] = {}
    words: list[str] = []
    machines = False
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner, its_parser in action.choices.items():
                words.append(inner)
                options |= {each.names: each for each in _command(inner, "", its_parser).options}
        elif action.option_strings:
            names = tuple(action.option_strings)
            choices = tuple(map(str, action.choices or ()))
            options[names] = Option(names, _line(action.help), action.nargs != 0, choices)
        else:
            machines |= action.metavar == "NAME|PID"
            words += map(str, action.choices or ())
    return Words(name, text, tuple(options.values()), tuple(words), machines)


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def _bash(commands: Sequence[Words]) -> Iterator[str]:
    yield "# bash completion for shardio. Made by `shardio completion bash`."
    yield "_shardio() {"
    yield '    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= first= i'
    yield "    COMPREPLY=()"
    yield "    for ((i = 1; i < COMP_CWORD; i++)); do"
    yield "        [[ ${COMP_WORDS[i]} == -* ]] || { command=${COMP_WORDS[i]}; first=$((i + 1)); break; }"
    yield "    done"
    yield '    case $command in'
    names = " ".join(command.name for command in commands)
    yield f'    "") COMPREPLY=($(compgen -W "{names} --help --version" -- "$cur")); return;;'
    for command in commands:
        yield f"    {command.name})"
        valued = [option for option in command.options if option.takes_value]
        if valued:
            yield "        case $prev in"
            for option in valued:
                given = f'COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$cur")); '
                yield f"        {'|'.join(option.names)}) {given if option.choices else ''}return;;"
            yield "        esac"
        options = " ".join(name for option in command.options for name in option.names)
        yield "        if [[ $cur == -* ]]; then"
        yield f'            COMPREPLY=($(compgen -W "{options}" -- "$cur")); return'
        yield "        fi"
        words = f'"$({MACHINES})"' if command.machines else shlex.quote(" ".join(command.words))
        if command.machines or command.words:
            yield f'        if ((COMP_CWORD == first)); then COMPREPLY=($(compgen -W {words} -- "$cur")); fi'
        yield "        ;;"
    yield "    esac"
    yield "}"
    yield "complete -o default -F _shardio shardio"


def _zsh(commands: Sequence[Words]) -> Iterator[str]:
    yield "#compdef shardio"
    yield "# Made by `shardio completion zsh`."
    yield "_shardio_machines() {"
    yield "    local -a machines"
    yield f"    machines=(${{(f)\"$({MACHINES})\"}})"
    yield "    _describe machine machines"
    yield "}"
    yield "_shardio() {"
    yield "    local -a commands"
    yield "    commands=("
    for command in commands:
        yield f"        {shlex.quote(f'{command.name}:{command.help}')}"
    yield "    )"
    yield "    if ((CURRENT == 2)); then"
    yield "        _describe command commands"
    yield "        _arguments '--help[show the help]' '--version[show the version]'"
    yield "        return"
    yield "    fi"
    yield "    local command=$words[2]"
    yield "    shift words; ((CURRENT--))"
    yield "    case $command in"
    for command in commands:
        yield f"    ({command.name})"
        yield "        _arguments -s \\"
        for option in command.options:
            text = option.help.replace("[", "(").replace("]", ")").replace(":", "\\:")
            value = f":value:({' '.join(option.choices)})" if option.choices else ":value:_files"
            for name in option.names:
                told = f"*{name}[{text}]{value if option.takes_value else ''}"
                yield f"            {shlex.quote(told)} \\"
        if command.machines:
            yield "            '1:machine:_shardio_machines' \\"
        elif command.words:
            yield f"            '1:word:({' '.join(command.words)})' \\"
        yield "            '*:file:_files'"
        yield "        ;;"
    yield "    esac"
    yield "}"
    yield 'if [[ $funcstack[1] == _shardio ]]; then _shardio "$@"; else compdef _shardio shardio; fi'


def _fish(commands: Sequence[Words]) -> Iterator[str]:
    yield "# fish completion for shardio. Made by `shardio completion fish`."
    start = "complete -c shardio -n __fish_use_subcommand"
    yield f"{start} -f"
    yield f"{start} -l help -d 'show the help'"
    yield f"{start} -l version -d 'show the version'"
    for command in commands:
        yield f"{start} -a {command.name} -d {_quoted(command.help)}"
        here = f"complete -c shardio -n '__fish_seen_subcommand_from {command.name}'"
        if command.machines:
            yield f"{here} -f -a {_quoted(f'({MACHINES})')}"
        if command.words:
            yield f"{here} -f -a {_quoted(' '.join(command.words))}"
        for option in command.options:
            spelt = " ".join(
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
            )
            value = " -x -a " + _quoted(" ".join(option.choices)) if option.choices else " -r"
            yield f"{here} {spelt} -d {_quoted(option.help)}{value if option.takes_value else ''}"


def _quoted(text: str) -> str:
    """A word of fish, whose quotes know backslashes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
