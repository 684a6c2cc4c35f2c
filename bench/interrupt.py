"""Ctrl-C while something is measured: it takes effect between two blocks, never inside one.

While an `Interrupt` is held, SIGINT is blocked in the main thread and in all that it starts, processes
included, so no half-started server sees it; a thread waits for it. The first one is a request that `check`
obeys. Another one breaks off whatever hangs: it is passed on as SIGUSR1, which the main thread does not
block.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

PASSED_ON = signal.SIGUSR1


class Interrupt:
    """A context of the main thread, for one measurement."""

    def __init__(self) -> None:
        self.requested = False
        self._done = False

    def __enter__(self) -> Self:
        self._main = threading.get_ident()
        self._handlers = [(each, signal.signal(each, self._press)) for each in (signal.SIGINT, PASSED_ON)]
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._thread = threading.Thread(target=self._wait, name="ctrl-c", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done = True
        signal.pthread_kill(self._thread.ident or 0, signal.SIGINT)
        self._thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        for number, handler in self._handlers:
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises `KeyboardInterrupt` once the user has asked for it."""
        if self.requested:
            raise KeyboardInterrupt

    def _wait(self) -> None:
        while True:
            signal.sigwait({signal.SIGINT})
            if self._done:
                return
            if self.requested:
                signal.pthread_kill(self._main, PASSED_ON)
            self.requested = True

    def _press(self, _number: int, _frame: FrameType | None) -> None:
        """In the main thread: the second one, or any that a thread of some library has taken."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
