"""A session whose device another interpreter serves: the program in `other/`, asked over its standard
streams.
"""

from __future__ import annotations

import contextlib
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import shardio
from shardio.bench.errors import BenchError
from shardio.bench.peers.idle import BesideIdle
from shardio.bench.peers.interpreter import VARIABLE, Interpreter, find
from shardio.bench.peers.peer import READ

REQUEST = struct.Struct("<5Q")
"""Operation, offset, size, value, count: the reply is the value, or for a count above 1 the nanoseconds of
each.
"""


class OtherPython(BesideIdle):
    """`kind`: a module of `other/`; `needs`: which interpreter, in words."""

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
        folder, program = Path(shardio.__file__).resolve().parent.parent, Path(__file__).with_name("other")
        command = [found.path, "-I", "-B", str(program), str(folder), self.kind, str(cpu)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def call(self, op: int, offset: int, size: int, value: int) -> int:
        return self._ask(op, offset, size, value, 1)[0]

    def calls(self, n: int, clock: Callable[[], int]) -> list[int]:
        """Nanoseconds of each of `n` reads, by the other interpreter's clock, which is the same one."""
        return self._ask(READ, 0, 4, 0, max(2, n))

    def _ask(self, *request: int) -> list[int]:
        stdin, stdout, size = self.process.stdin, self.process.stdout, 8 * request[-1]
        assert stdin is not None
        assert stdout is not None
        data = b""
        with contextlib.suppress(BrokenPipeError):
            stdin.write(REQUEST.pack(*request))
            while len(data) < size and (part := stdout.read(size - len(data))):
                data += part
        if len(data) < size:
            raise BenchError("the other interpreter ended", "see its message above")
        return list(struct.unpack(f"<{request[-1]}Q", data))

    def close(self) -> None:
        super().close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.communicate(timeout=5)
        self.process.kill()
        self.process.wait()
