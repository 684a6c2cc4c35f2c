"""Lets the supervisor's thread have the interpreter soon while a guest waits for a recovery.

Facts. A thread that wants the GIL waits for `sys.getswitchinterval()`, 5 ms by default, before a thread that
computes yields it, and each system call gives it away again. The interval is the whole process's.

Consequences. While a machine has a supervisor the interval is 1 ms at most; 0.1 ms while the supervisor has
something to do, and from a death until the successor holds its devices. Then it is what it was. All machines
of a program count together.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter

WATCH_S = 0.001
URGENT_S = 0.0001

_lock = threading.Lock()
_wanted: Counter[float] = Counter()
_usual_s = 0.0


class GilSwitchInterval:
    """What one supervisor wants, by any key. `begin` and `end` are idempotent."""

    def __init__(self) -> None:
        self._wanted: dict[object, float] = {}

    def begin(self, key: object, interval: float = URGENT_S) -> None:
        """From now on the switch interval is `interval` seconds at most."""
        if key not in self._wanted:
            self._wanted[key] = interval
            _count(interval, 1)

    def end(self, key: object) -> None:
        """`key` wants nothing any more."""
        if key in self._wanted:
            _count(self._wanted.pop(key), -1)

    def end_all(self) -> None:
        """Nothing is wanted any more."""
        for key in tuple(self._wanted):
            self.end(key)


def _count(interval: float, change: int) -> None:
    global _usual_s
    with _lock:
        if not _wanted:
            _usual_s = sys.getswitchinterval()
        _wanted[interval] += change
        if not _wanted[interval]:
            del _wanted[interval]
        # It is kept as whole microseconds, cut: without the half, one would be lost each time.
        sys.setswitchinterval(min([_usual_s, *_wanted]) + 5e-7)
