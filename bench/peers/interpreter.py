"""Another Python than this one: the interpreter that `--python` or SHARDIO_BENCH_PYTHON names, this one, what
is on PATH, and what pyenv and uv have installed, the newest first.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from shardio.bench.errors import BenchError

VARIABLE = "SHARDIO_BENCH_PYTHON"
NAMES = [f"python3.{minor}{kind}" for minor in (15, 14, 13, 12) for kind in ("t", "")]
MANAGED = ("${PYENV_ROOT}/versions", "~/.pyenv/versions", "~/.local/share/uv/python")
NUMBER, TIMEOUT_S = re.compile(r"\d+"), 30.0
_PROBE = """
import json, sys
gil = getattr(sys, "_is_gil_enabled", lambda: True)()
print(json.dumps([sys.implementation.name, list(sys.version_info[:3]), gil]))
"""


class Interpreter(NamedTuple):
    """A Python: `gil` is False where it runs without one."""

    path: str
    implementation: str
    version: tuple[int, int, int]
    gil: bool

    @property
    def title(self) -> str:
        """Its kind and version."""
        kind = "" if self.gil else ", free-threaded"
        return f"{self.implementation} {'.'.join(map(str, self.version))}{kind}"


@cache
def probed(path: str) -> Interpreter | None:
    """What is at `path`; None when it is no Python that runs."""
    try:
        command = [path, "-I", "-c", _PROBE]
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=True)
        implementation, version, gil = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Interpreter(path, implementation, tuple(version), gil)


def find(fits: Callable[[Interpreter], bool]) -> Interpreter | None:
    """The first interpreter that fits. Raises what `check_named` raises."""
    return next((found for path in _paths(check_named()) if (found := probed(path)) and fits(found)), None)


def check_named() -> str:
    """The interpreter to try first, by the variable. Raises `BenchError` when it is no Python."""
    named = os.environ.get(VARIABLE, "")
    if named and probed(shutil.which(named) or named) is None:
        raise BenchError(f"{named} is no Python that runs", f"correct --python or {VARIABLE}")
    return named


def _paths(named: str) -> Iterator[str]:
    first = named and (shutil.which(named) or named)
    yield from filter(None, [first, sys.executable, *map(shutil.which, NAMES)])
    for folder in MANAGED:
        # Without the variable the folder has its name, which does not exist.
        found = map(str, Path(os.path.expandvars(folder)).expanduser().glob("*/bin/python3"))
        yield from sorted(found, key=lambda path: [int(n) for n in NUMBER.findall(path)], reverse=True)
