"""A console that a script uses: `--expect TEXT` waits for what the guest prints, `--send TEXT` types.

The steps are taken in the order of the command line. While a script lasts, this process's standard output is
a pipe, which the shards inherit: a thread here copies it to the real one and looks for what is expected.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from shardio.threads import start

STDOUT = 1
CHUNK = 1 << 16
# What is kept of the output while a text is awaited; a longer text keeps its own length.
KEPT = 4096
SHOWN = 80
ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{2}|.)", re.DOTALL)
ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"e": b"\x1b", b"\\": b"\\"}


class Step(NamedTuple):
    """`text` is to be sent, or to come; `option` is how messages call it."""

    option: str
    text: bytes


class AddStep(argparse.Action):
    """Collects `--expect` and `--send` in their order, in one list."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any,
        option: str | None = None,
    ) -> None:  # fmt: skip
        try:
            text = unescaped(value)
        except ValueError as error:
            parser.error(f"argument {option}: {error}")
        steps: list[Step] = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*steps, Step(str(option).lstrip("-"), text)])


def unescaped(text: str) -> bytes:
    """The bytes of TEXT: UTF-8, with the escapes of `ESCAPES` and two hexadecimal digits after `x`.

    Raises ValueError for no text, and for an escape that is none.

    >>> unescaped(r"ls\\r"), unescaped(r"\\x01x")
    (b'ls\\r', b'\\x01x')
    """
    if not text:
        raise ValueError("there is no text")

    def one(match: re.Match[bytes]) -> bytes:
        code = match[1]
        if len(code) == 3:
            return bytes([int(code[1:], 16)])
        if code not in ESCAPES:
            raise ValueError(rf'"\{code.decode(errors="replace")}" is no escape: use \n \r \t \e \\ or \x1b')
        return ESCAPES[code]

    return ESCAPE.sub(one, os.fsencode(text))


class Script:
    """The steps, while the context lasts; `keys` is what the guest's console is to read.

    `done` is called when the last step was an expectation and it came: after a text that is sent, the guest
    has the last word. `missing` is the step that the guest's end left open.
    """

    def __init__(self, steps: Sequence[Step], done: Callable[[], None]) -> None:
        self._steps = deque(steps)
        self._done = done
        self._said = b""
        self._thread = threading.Thread(target=self._follow, name="console script", daemon=True)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            self.keys, self._typed = os.pipe2(os.O_CLOEXEC)
            undo.callback(os.close, self.keys)
            undo.callback(os.close, self._typed)
            self._real = os.dup(STDOUT)
            undo.callback(os.close, self._real)
            self._over = os.eventfd(0, os.EFD_CLOEXEC)
            undo.callback(os.close, self._over)
            self._output, written = os.pipe2(os.O_CLOEXEC)
            undo.callback(os.close, self._output)
            os.set_blocking(self._output, False)
            os.dup2(written, STDOUT)
            os.close(written)
            undo.callback(os.dup2, self._real, STDOUT)
            start(self._thread)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.eventfd_write(self._over, 1)
        self._thread.join()
        self._undo.close()

    @property
    def missing(self) -> Step | None:
        """The first expectation that has not come."""
        return next((step for step in tuple(self._steps) if step.option == "expect"), None)

    def complaint(self) -> str | None:
        """One line on what did not come, or None."""
        if (step := self.missing) is None:
            return None
        last = self._said[-SHOWN:].decode(errors="backslashreplace")
        return f"the guest did not print {step.text.decode(errors='backslashreplace')!r}; its last: {last!r}"

    def _follow(self) -> None:
        """The thread: until the context ends, and all that was printed before."""
        self._advance()
        waiting = select.poll()
        waiting.register(self._output, select.POLLIN)
        waiting.register(self._over, select.POLLIN)
        while ready := dict(waiting.poll()):
            if self._output not in ready:
                return
            data = os.read(self._output, CHUNK)
            _write(self._real, data)
            self._said += data
            self._advance()

    def _advance(self) -> None:
        """Takes the steps that can be taken now."""
        while self._steps:
            step = self._steps[0]
            if step.option == "send":
                _write(self._typed, step.text)
            elif (at := self._said.find(step.text)) < 0:
                self._said = self._said[-max(KEPT, len(step.text)) :]
                return
            else:
                self._said = self._said[at + len(step.text) :]
            self._steps.popleft()
            if not self._steps and step.option == "expect":
                self._done()
        self._said = self._said[-KEPT:]


def _write(fd: int, data: bytes) -> None:
    """All of `data`, where somebody takes it."""
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(fd, data) :]
