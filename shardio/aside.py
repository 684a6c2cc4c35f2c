"""Does what may have to wait in a thread of its own, for one that must not wait: it writes lines of a log.

Facts. A terminal that is held (Ctrl-S) or a pipe that nobody reads makes its writer wait, for hours. A thread
that answers guests, or that watches those that do, then looks like a hang. The descriptor cannot be made
non-blocking: other programs write by it too.

Consequences. The caller waits until its action is done, so that lines come in order and none is lost by what
the caller does next; but 10 ms at most, and not at all while an earlier action has not ended. What waits is
bounded, and what finds no room is counted.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from shardio.errors import HostError
from shardio.threads import start

MOST = 256
"""Actions that may wait."""
PATIENCE_S = 0.01
IDLE_S = 1.0
"""The thread ends when it has had nothing to do for so long."""


class Aside:
    """A thread that does actions in order, while there are any. `lost` counts those that found no room."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.lost = 0
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting: deque[Callable[[], None]] = deque()
        self._begun = self._done = 0
        self._late = self._runs = False

    def do(self, action: Callable[[], None]) -> bool:
        """Have `action`, which raises nothing, done. False: there was no room, and it is lost."""
        if os.getpid() != self._pid:
            self._begin()  # a fork has neither the thread nor what waits for it
        with self._changed:
            if len(self._waiting) >= MOST or not self._started():
                self.lost += 1
                return False
            self._waiting.append(action)
            self._begun += 1
            this = self._begun
            self._changed.notify_all()
            if not self._late:
                self._late = not self._changed.wait_for(lambda: self._done >= this, PATIENCE_S)
        return True

    def drain(self, seconds: float) -> bool:
        """Wait until all is done, so long at most. False: something is not."""
        if os.getpid() != self._pid:
            return True
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, seconds)

    def _started(self) -> bool:
        if not self._runs:
            try:
                start(threading.Thread(target=self._run, name=self._name, daemon=True))
            except HostError:
                return False
            self._runs = True
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._waiting, IDLE_S):
                    self._runs = False
                    return
                action = self._waiting[0]
            action()
            with self._changed:
                self._waiting.popleft()
                self._done += 1
                self._late = self._late and bool(self._waiting)
                self._changed.notify_all()


_local = threading.local()
_log = Aside("shardio-log")


def wait_for_nobody() -> None:
    """From now on, what the calling thread logs by a logger of `aside_logger` is handled aside."""
    _local.waits_for_nobody = True


def aside_logger(name: str) -> logging.Logger:
    """The logger of this name. Its handlers are the program's, and may wait for whatever they like."""
    logger = logging.getLogger(name)
    handle = logger.handle

    def handle_aside(record: logging.LogRecord) -> None:
        if getattr(_local, "waits_for_nobody", False):
            _log.do(partial(handle, record))
        else:
            handle(record)

    logger.handle = handle_aside  # type: ignore[method-assign]
    return logger
