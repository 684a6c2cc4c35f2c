"""What a mistyped name was meant to be: the hint that goes with an unknown name, wherever names are given."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The hint for an unknown name: the known one that is nearest, or those, or None when none is near.

    >>> nearest("vcpu", ["memory", "vcpus"]), nearest("vcpu", ["cpu", "vcpus"])
    ('did you mean "vcpus"?', 'did you mean "cpu" or "vcpus"?')
    """
    names = sorted(set(known))
    slip = [each for each in names if _slips(name, each) == 1]
    close = slip or difflib.get_close_matches(name, names, n=1)
    meant = " or ".join(f'"{each}"' for each in close)
    return f"did you mean {meant}?" if meant else None


def _slips(typed: str, meant: str) -> int:
    """How many letters to insert, delete, replace or swap with the next one (Damerau and Levenshtein)."""
    above, row = [0] * (len(meant) + 1), list(range(len(meant) + 1))
    for i, letter in enumerate(typed):
        over, above, row = above, row, [i + 1]
        for j, other in enumerate(meant):
            row.append(min(above[j] + (letter != other), above[j + 1] + 1, row[j] + 1))
            if i and j and letter == meant[j - 1] and typed[i - 1] == other:
                row[j + 1] = min(row[j + 1], over[j - 1] + 1)
    return row[-1]


def listed(names: Iterable[str]) -> str:
    """The hint where nothing is near: what there is.

    >>> listed(["vcpus", "memory"])
    'known are memory, vcpus'
    """
    return f"known are {', '.join(sorted(names)) or 'none'}"
