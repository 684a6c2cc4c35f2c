"""How a running machine is told to stop from outside: a signal, or the user's Ctrl-a x.

A signal may arrive anywhere. So only while `armed` does one break off what the main thread is doing, by
raising `StopRequested` there; before that it is remembered and raised on arming, and after it, while the
machine is being taken apart, further ones change nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(BaseException):
    """The machine is to be stopped now. Not an `Exception`: no handler of errors may swallow it."""


class StopRequests:
    """Takes over SIGINT, SIGTERM and SIGHUP while the context lasts; made in the main thread. Those that were
    ignored stay so (nohup, a job of a script).

    `requested`: whether any came; `signal` is the first one, None for the user's leave.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._main = threading.get_ident()
        self.requested = False
        self._left = False
        self._armed = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def armed(self) -> Iterator[None]:
        """While it lasts a request raises `StopRequested` in the main thread, once."""
        try:
            self._armed = True
            if self.requested:
                self._raise()
            yield
        finally:
            self._armed = False

    def leave(self) -> None:
        """The user's request; from any thread."""
        self._left = True
        signal.pthread_kill(self._main, signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._previous.get(number) is signal.SIG_IGN and not self._left:
            return
        if not self.requested:
            self.requested = True
            self.signal = None if self._left else number
        if self._armed:
            self._raise()

    def _raise(self) -> None:
        self._armed = False
        raise StopRequested
