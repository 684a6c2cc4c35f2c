"""The log of a shard: to standard error, as it happens, each line with the machine, the shard and the device.

The machine is its VMM's pid. The device is the one whose method is executing, found on the stack when
something is logged, so that accesses pay nothing for it; else the one that asked for what is executing, a
timer say: what a device asks the loop for inherits `DEVICE`.

A shard never waits for whoever reads its standard error: lines that find no room are lost and counted, and
the next line that finds room says how many.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
from collections.abc import Callable
from contextvars import ContextVar

from shardio.aside import Aside

FORMAT = "shardio[%(machine)s] %(shard)s %(device)s: %(levelname)s: %(message)s"
NOBODY = "-"
STDERR = 2
FLUSH_S = 0.5
DEVICE: ContextVar[str] = ContextVar("DEVICE", default=NOBODY)
"""The name of the device whose constructor, `attach` or another method this is called for."""


class Names(logging.Filter):
    """Gives each record `machine`, `shard` and `device`; `name_of`: a device object's name, else None."""

    def __init__(self, machine: int, shard: str, name_of: Callable[[object], str | None]) -> None:
        super().__init__()
        self._machine, self._shard, self._name_of = machine, shard, name_of

    def filter(self, record: logging.LogRecord) -> bool:
        """Every record passes."""
        record.machine, record.shard, record.device = self._machine, self._shard, self._device()
        return True

    def _device(self) -> str:
        frame = sys._getframe()
        while (outer := frame.f_back) is not None:
            frame = outer
            if (name := self._name_of(frame.f_locals.get("self"))) is not None:
                return name
        return DEVICE.get()


class AsideHandler(logging.Handler):
    """Writes to the descriptor `fd`, of whatever kind, and lets nobody wait for it (`shardio.aside`)."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._aside = Aside("shardio-log")
        self._told = 0

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
        else:
            self._aside.do(lambda: self._write(text))

    def flush(self) -> None:
        """Give the lines that wait a moment more."""
        self._aside.drain(FLUSH_S)

    def _write(self, text: str) -> None:
        if (lost := self._aside.lost) > self._told:
            text = f"{lost - self._told} lines of this log are lost: nobody read them\n{text}"
            self._told = lost
        # Not by sys.stderr: its lock would be held meanwhile, and the interpreter waits for it at its end.
        left = f"{text}\n".encode(errors="backslashreplace")
        with contextlib.suppress(OSError):
            while left:
                try:
                    left = left[os.write(self._fd, left) :]
                except BlockingIOError:  # somebody has made it non-blocking
                    room = select.poll()
                    room.register(self._fd, select.POLLOUT)
                    room.poll()


def log_to_stderr(
    level: int, machine: int, shard: str = NOBODY, name_of: Callable[[object], str | None] = lambda _: None
) -> None:
    """Write what has at least `level` to standard error."""
    handler = AsideHandler(STDERR)
    handler.setFormatter(logging.Formatter(FORMAT))
    handler.addFilter(Names(machine, shard, name_of))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)
