"""Option values that several devices share: sizes such as "64M"."""

from __future__ import annotations

import re
from typing import TypeVar

from shardio.errors import DeviceOptionError

_SIZE = re.compile(r"\s*(0x[0-9a-f]+|\d+)\s*(?:([KMGT])(?:i?B)?|B)?\s*", re.IGNORECASE)
_Number = TypeVar("_Number", int, float)
_SHIFT = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def memory_size(value: int | str, *, device: str, option: str = "memory") -> int:
    """`value` in bytes: an int is bytes already, a string may carry K, M, G or T (powers of 1024).

    Raises DeviceOptionError naming `device` and `option` for a negative or unreadable size.

    >>> memory_size("64M", device="CmosRtc")
    67108864
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (found := _SIZE.fullmatch(value)):
        base = 16 if found[1][:2].lower() == "0x" else 10
        return int(found[1], base) << _SHIFT[(found[2] or "").upper()]
    raise DeviceOptionError(device, option, value, 'give a number of bytes or a size such as "64M" or "2G"')


def in_range(value: _Number, low: int, high: int, *, device: str, option: str) -> _Number:
    """`value`, when it is a number in [`low`, `high`].

    Raises DeviceOptionError otherwise.

    >>> in_range(2, 1, 256, device="CmosRtc", option="vcpus")
    2
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise DeviceOptionError(device, option, value, f"give a number from {low} to {high}")
    return value


def list_of_texts(value: list[str] | None, *, device: str, option: str) -> list[str]:
    """`value`, when it is a list of texts; an empty one for None. Raises DeviceOptionError otherwise.

    >>> list_of_texts(["a"], device="FwCfg", option="files")
    ['a']
    """
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise DeviceOptionError(device, option, value, "give a list of texts")
    return value
