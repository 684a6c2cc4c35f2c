"""The log of a shard: to standard error, as it happens, each line with the machine, the shard and the device.

The machine is its VMM's pid. The device is the one whose method is executing, found on the stack when
something is logged, so that accesses pay nothing for it; else the one that asked for what is executing, a
timer say: what a device asks the loop for inherits `DEVICE`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar

FORMAT = "shardio[%(machine)s] %(shard)s %(device)s: %(levelname)s: %(message)s"
NOBODY = "-"
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


def log_to_stderr(
    level: int, machine: int, shard: str = NOBODY, name_of: Callable[[object], str | None] = lambda _: None
) -> None:
    """Write what has at least `level` to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(FORMAT))
    handler.addFilter(Names(machine, shard, name_of))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)
