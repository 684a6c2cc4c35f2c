"""Another Python than this one: finding it, and a session whose device lives in it.

What is looked for: the interpreter that `--python` or SHARDIO_BENCH_PYTHON names, this one, what is on PATH,
and what pyenv and uv have installed, the newest first.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import shardio
from shardio.bench.errors import BenchError
from shardio.bench.peers.idle import BesideIdleSession
from shardio.bench.peers.interpreter_main import REQUEST
from shardio.bench.peers.peer import READ, Peer, Session

VARIABLE = "SHARDIO_BENCH_PYTHON"
NAMES = [f"python3.{minor}{kind}" for minor in (15, 14, 13, 12) for kind in ("t", "")]
MANAGED = ("${PYENV_ROOT}/versions", "~/.pyenv/versions", "~/.local/share/uv/python")
ANSWER_TIMEOUT_S = 30.0
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
        done = subprocess.run(
            [path, "-I", "-c", _PROBE], capture_output=True, timeout=ANSWER_TIMEOUT_S, check=True
        )
        implementation, version, gil = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Interpreter(path, implementation, tuple(version), gil)


def find(named: str, fits: Callable[[Interpreter], bool]) -> Interpreter | None:
    """The first interpreter that fits. Raises what `check_named` raises."""
    named = check_named(named)
    return next((found for path in _paths(named) if (found := probed(path)) and fits(found)), None)


def check_named(named: str) -> str:
    """The interpreter to try first: `named`, or the variable's. Raises `BenchError` when it is no Python."""
    named = named or os.environ.get(VARIABLE, "")
    if named and probed(shutil.which(named) or named) is None:
        raise BenchError(f"{named} is no Python that runs", f"correct --python or {VARIABLE}")
    return named


def _paths(named: str) -> Iterator[str]:
    if named:
        yield shutil.which(named) or named
    yield sys.executable
    yield from filter(None, map(shutil.which, NAMES))
    for folder in MANAGED:
        # Without the variable the folder has its name, which does not exist.
        versions = Path(os.path.expandvars(folder)).expanduser().glob("*/bin/python3")
        yield from map(str, sorted(versions, key=lambda path: _numbers(path.parts[-3]), reverse=True))


def _numbers(name: str) -> list[int]:
    """The numbers in a folder's name, to sort by.

    >>> _numbers("cpython-3.13.0t-linux")
    [3, 13, 0]
    """
    return [int(part) for part in "".join(c if c.isdigit() else " " for c in name).split()]


class OtherPython(Peer):
    """A device that is served by another interpreter: `kind` of `interpreter_main`, `needs` in words."""

    kind: str
    needs: str
    hint = f"install one, or name it with --python or {VARIABLE}"

    def __init__(self, python: str = "") -> None:
        """`python`: a name or path to try first."""
        self._named = python

    def fits(self, interpreter: Interpreter) -> bool:
        """Whether an interpreter can do it."""
        raise NotImplementedError

    def missing(self) -> str:
        """Why it cannot be measured here; empty when it can."""
        return "" if find(self._named, self.fits) else f"no {self.needs} was found"

    def open(self, cpu: int) -> Session:
        """The interpreter, with the device's owner on `cpu`."""
        found = find(self._named, self.fits)
        if found is None:
            raise BenchError(self.missing(), self.hint)
        return InterpreterSession(found, self.kind, cpu)


class InterpreterSession(BesideIdleSession):
    """Accesses made and timed in another interpreter."""

    def __init__(self, python: Interpreter, kind: str, cpu: int) -> None:
        super().__init__(cpu)
        self.note = python.title
        folder = Path(shardio.__file__).resolve().parent.parent
        script = Path(__file__).with_name("interpreter_main.py")
        self._process = subprocess.Popen(
            [python.path, "-I", "-B", str(script), str(folder), kind, str(cpu)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def call(self, op: int, offset: int, size: int, value: int) -> int:
        """One access."""
        return self._ask(op, offset, size, value, 1)[0]

    def calls(self, n: int, clock: Callable[[], int]) -> list[int]:
        """Nanoseconds of each of `n` reads, by the other interpreter's clock, which is the same one."""
        return self._ask(READ, 0, 4, 0, max(2, n))

    def close(self) -> None:
        """End both processes."""
        super().close()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _ask(self, op: int, offset: int, size: int, value: int, count: int) -> list[int]:
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), REQUEST.pack(op, offset, size, value, count))
        except BrokenPipeError:
            raise BenchError("the other interpreter ended", "see its message above") from None
        return list(struct.unpack(f"<{count}Q", self._read(8 * count)))

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        fd, data = self._process.stdout.fileno(), b""
        while len(data) < size:
            if not select.select([fd], [], [], ANSWER_TIMEOUT_S)[0]:
                raise BenchError(
                    f"the other interpreter has not answered for {ANSWER_TIMEOUT_S} s",
                    "run on a quieter machine",
                )
            part = os.read(fd, size - len(data))
            if not part:
                raise BenchError("the other interpreter ended", "see its message above")
            data += part
        return data
