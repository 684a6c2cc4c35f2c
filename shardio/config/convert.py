"""From a table of TOML to a Struct, and the place in the file of what is wrong there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from shardio.errors import ConfigError, ShardioError
from shardio.spelling import listed, nearest

# Keys whose value may be text: "0x3f8".
NUMBERS = {"pio", "mmio", "size", "irq", "at", "entry"}


@contextmanager
def told_at(where: str) -> Iterator[None]:
    """What the library refuses, with the place in the configuration in front."""
    try:
        yield
    except ShardioError as error:
        raise ConfigError(where, error.message, error.hint) from error


def refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], where: str, what: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(where, f'unknown {what} "{key}"', nearest(key, known) or listed(known))


def convert(table: Mapping[str, Any], kind: Any, where: str) -> Any:
    """The table as a Struct; hexadecimal text counts as a number where a number is wanted."""
    numbers = {key: _number(value, f"{where} {key}") for key, value in table.items() if key in NUMBERS}
    try:
        return msgspec.convert({**table, **numbers}, kind, dec_hook=lambda wanted, value: wanted(value))
    except msgspec.ValidationError as error:
        problem, _, at = str(error).partition(" - at `$.")
        problem = problem[:1].lower() + problem[1:]
        key = at.rstrip("`")
        raise ConfigError(f"{where} {key}", problem, _choices(kind, key)) from error


def _choices(kind: Any, key: str) -> str:
    """The hint for a wrong value: the words that the key takes, where it takes but some."""
    words: list[str] = []
    for part in _parts(get_type_hints(kind).get(key)):
        words += [f'"{word}"' for word in get_args(part)] if get_origin(part) is Literal else []
        words += ["true", "false"] if part is bool else []
    return f"use {', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else "correct the value"


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if isinstance(hint, UnionType) or get_origin(hint) is Union else (hint,)


def _number(value: object, where: str) -> object:
    if not isinstance(value, str):
        return value
    try:
        return int(value, 0)
    except ValueError as error:
        raise ConfigError(where, f'"{value}" is no number', 'write 0x3f8 or "0x3f8"') from error
