"""What the arguments of `Dispatcher.add` must be, before anything is made of them: what is no number would
fail where nobody knows of it any more, in a message to a shard say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

from shardio.errors import MachineError


def check_number(what: str, key: str, value: object) -> None:
    """Raises `MachineError` for what is no whole number; a truth value is none."""
    if not isinstance(value, SupportsIndex) or isinstance(value, bool):
        raise MachineError(f"{what} has {key}={value!r}", "give a whole number")


def check_numbers(what: str, **values: object) -> None:
    """The same for each that was given."""
    for key, value in values.items():
        if value is not None:
            check_number(what, key, value)


def is_text(value: object) -> bool:
    """Whether it is a text of one letter or more that can be told to another process."""
    try:
        return isinstance(value, str) and bool(value.encode())
    except UnicodeEncodeError:
        return False


def check_list(label: str, key: str, value: object, of: str) -> None:
    """Raises `MachineError` for what is given and no list or tuple."""
    if value is not None and (not isinstance(value, Sequence) or isinstance(value, str | bytes)):
        raise MachineError(f"device {label} has {key}={value!r}", f"give a list of {of}")
