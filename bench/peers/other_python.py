"""Sessions whose device another interpreter serves: the program `other`, asked over its standard streams."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import shardio
from shardio.bench.errors import BenchError
from shardio.bench.peers.interpreter import VARIABLE, Interpreter, find
from shardio.bench.peers.peer import READ
from shardio.bench.peers.pipe import BesideIdle


class OtherPython(BesideIdle):
    """`kind`: one of `other`'s; `needs`: which interpreter, in words."""

    kind: ClassVar[str]
    needs: ClassVar[str]
    hint = f"install one, or name it with --python or {VARIABLE}"

    @classmethod
    def fits(cls, interpreter: Interpreter) -> bool:
        raise NotImplementedError

    @classmethod
    def missing(cls) -> str:
        return "" if find(cls.fits) else f"no {cls.needs} was found"

    def __init__(self, cpu: int, python: Interpreter | None = None) -> None:
        """With the device's owner on `cpu`. `python`: by default the first that fits."""
        found = python or find(self.fits)
        if found is None:
            raise BenchError(self.missing(), self.hint)
        super().__init__(cpu)
        self.note = found.title
        folder, program = Path(shardio.__file__).resolve().parent.parent, Path(__file__).with_name("other.py")
        command = [found.path, "-I", "-B", str(program), str(folder), self.kind, str(cpu)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)

    def call(self, op: int, offset: int, size: int, value: int) -> int:
        return self._ask(op, offset, size, value, 1)[0]

    def calls(self, n: int, clock: Callable[[], int]) -> list[int]:
        """Nanoseconds of each of `n` reads, by the other interpreter's clock, which is the same one."""
        return self._ask(READ, 0, 4, 0, max(2, n))

    def _ask(self, *request: int) -> list[int]:
        line = ""
        with contextlib.suppress(BrokenPipeError):
            print(*request, file=self.process.stdin)
            line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise BenchError("the other interpreter ended", "see its message above")
        return list(map(int, line.split()))

    def close(self) -> None:
        super().close()
        with contextlib.suppress(subprocess.TimeoutExpired, BrokenPipeError):
            self.process.communicate(timeout=5)
        self.process.kill()
        self.process.wait()
