"""The size of the user's terminal, told to the consoles that are on it.

A signal's handler may run anywhere in the main thread, which may hold what telling a shard needs: so the
handler only rings, and a thread asks and tells.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from shardio.errors import ShardioError
from shardio.threads import start

if TYPE_CHECKING:
    from shardio.machine import Machine

JOIN_S = 0.5


def tell_consoles(vm: Machine, columns: int, rows: int) -> None:
    """Call `terminal_resized` of each device that has it."""
    for handle in vm.dispatcher.devices:
        if hasattr(handle.request.factory, "terminal_resized"):
            with contextlib.suppress(ShardioError):  # its shard died, or the machine ends
                handle.call("terminal_resized", columns, rows)


class SizeWatch:
    """Calls `tell(columns, rows)` with the size of the terminal `fd`, now and whenever it changes (SIGWINCH),
    in a thread of its own, while the context lasts; nothing when it is no terminal. In the main thread.
    """

    def __init__(self, fd: int, tell: Callable[[int, int], None]) -> None:
        self.fd = fd
        self._tell = tell
        self._ended = False
        self._changed = -1
        self._thread = threading.Thread(target=self._watch, name="terminal size", daemon=True)

    def __enter__(self) -> Self:
        if os.isatty(self.fd):
            self._changed = os.eventfd(1, os.EFD_CLOEXEC)
            self._previous = signal.signal(signal.SIGWINCH, lambda *_: os.eventfd_write(self._changed, 1))
            start(self._thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._changed >= 0:
            signal.signal(signal.SIGWINCH, self._previous)
            self._ended = True
            os.eventfd_write(self._changed, 1)
            self._thread.join(JOIN_S)  # a shard that does not answer keeps nobody from leaving
            if not self._thread.is_alive():
                os.close(self._changed)

    def _watch(self) -> None:
        while os.eventfd_read(self._changed) and not self._ended:
            with contextlib.suppress(OSError):  # it hung up
                columns, rows = os.get_terminal_size(self.fd)
                if columns and rows:  # a terminal that nobody gave a size has none
                    self._tell(columns, rows)
