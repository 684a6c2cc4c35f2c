"""Numbers in few characters, for columns that line up."""

from __future__ import annotations

_UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "us"))
_SCALES = ((1e9, "G", 0.999_95e9), (1e6, "M", 0.999_95e6), (1e3, "k", 9_999.5))
"""A unit, its letter, and from where on it is used."""


def short_time(ns: float) -> str:
    """A time in at most 6 characters; nothing for none.

    >>> short_time(250), short_time(1500), short_time(123_456), short_time(999_999), short_time(0)
    ('250ns', '1.5us', '123us', '1.0ms', '')
    """
    for scale, unit in _UNITS:
        if ns >= 0.9995 * scale:
            value = ns / scale
            return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"
    return f"{ns:.0f}ns" if ns else ""


def short_number(value: float) -> str:
    """A number or rate in at most 6 characters.

    >>> short_number(7), short_number(0.25), short_number(12_345), short_number(2_500_000), short_number(0)
    ('7', '0.2', '12.3k', '2.5M', '0')
    """
    for scale, letter, least in _SCALES:
        if value >= least:
            return f"{value / scale:.1f}{letter}"
    return f"{value:.0f}" if value >= 9.95 or value == int(value) else f"{value:.1f}"


def percent(share: float | None) -> str:
    """A share in at most 6 characters; a dash for one that nobody knows.

    >>> percent(0.125), percent(1.0), percent(None)
    ('12.5%', '100.0%', '-')
    """
    return "-" if share is None else f"{share:.1%}"


def printable(text: str) -> str:
    """A name as a terminal may have it.

    >>> printable("uart\\x1b[2J")
    'uart?[2J'
    """
    return "".join(each if each.isprintable() else "?" for each in text)
