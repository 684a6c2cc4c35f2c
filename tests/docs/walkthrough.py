"""Follows a page of the documentation: its files are written and its commands typed, in the page's order.

In a page, a block of code with a title is a file of that name. A block `console` holds commands after `$ `,
each followed by what it prints: all of its standard output, in order, and as much of its standard error as
the page likes to show. A block `text` shows more of what the last command said on standard error. Times and
shares may differ, and so may blanks.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
MEASURED = re.compile(r"\d+(?:\.\d+)? ?(?:ns|us|ms|s|%)(?!\w)")
# What sets up the interpreter that runs the test.
IN_THE_CLONE = "in the clone"


class Block(NamedTuple):
    """A block of code: its language, its title (empty where it has none) and its text."""

    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The blocks of code of a page, in its order."""
    return [Block(*found) for found in BLOCK.findall(page.read_text())]


def follow(page: Path, folder: Path) -> list[str]:
    """Does in `folder` all that the page says; what came out differently, command by command."""
    differences, told = [], ""
    for block in blocks(page):
        if block.language == "console" and block.title != IN_THE_CLONE:
            for command, shown in commands(block):
                done = run(command, folder)
                told = done.stderr
                differences += compare(command, comparable(shown), comparable(done.stdout), comparable(told))
        elif block.language == "text":
            missing = set(comparable(block.text)) - set(comparable(told))
            differences += [f"not on standard error: {line}" for line in sorted(missing)]
        elif block.title != IN_THE_CLONE:
            (folder / block.title).write_text(block.text)
    return differences


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Each command of a console block, with what the page shows below it."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Types a command in that folder, with the Python and the shardio of this test run first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # The plugins of our own tests take pytest longer to load than a page's tests take;
    # options of this run are not a reader's.
    pytest = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    environment = {**os.environ, **pytest, "PATH": path, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, shell=True, cwd=folder, env=environment,
        capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip


def comparable(text: str) -> list[str]:
    """The lines of an output without what differs between two runs: times, shares and blanks."""
    return [" ".join(MEASURED.sub("#", line).split()) for line in text.splitlines() if line.strip()]


def compare(command: str, shown: list[str], printed: list[str], told: list[str]) -> list[str]:
    """How the lines that a page shows differ from those on standard output and standard error."""
    unexpected = [line for line in shown if line not in printed and line not in told]
    found = [f"{command}: shown, and not printed: {line}" for line in unexpected]
    if [line for line in shown if line in printed] != printed:
        found.append(f"{command}: printed {printed}, and the page shows {shown}")
    return found + [f"{command}: on standard error: {line}" for line in told if found]
