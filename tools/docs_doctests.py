"""Shows the doctests of docstrings as blocks of code: an extension of griffe, which reads the sources for the
pages of the API.

Markdown would take `>>>` for three nested quotations.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

# A line that begins with >>>, and all that follows it up to an empty line.
DOCTEST = re.compile(r"^ *>>> .*\n?(?:(?! *$).*\n?)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Fences each doctest."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each object whose source was read."""
        if obj.docstring is not None:
            obj.docstring.value = DOCTEST.sub(fenced, obj.docstring.value)


def fenced(doctest: re.Match[str]) -> str:
    """The doctest in a fence, with an empty line in front."""
    return f"\n```pycon\n{doctest[0].rstrip()}\n```\n"
