"""A limit on what a guest can make the host log, shared by every device of a process.

A guest decides how often it sets a device up wrongly, or places a base address register where none belongs.
Each of these deserves a line, but a loop of them must not fill the host's log: a token bucket lets a burst
through, then one line a second, and the next line that passes says how many were held back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable


class LogLimit:
    """A token bucket of log lines. `suppressed` counts the lines that were held back since it was made.

    >>> now = [0.0]
    >>> limit = LogLimit(burst=2, per_second=1.0, clock=lambda: now[0])
    >>> [limit.admits() for _ in range(4)], limit.suppressed
    ([True, True, False, False], 2)
    >>> now[0] = 1.0
    >>> limit.admits()
    True
    """

    def __init__(
        self, burst: int = 10, per_second: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`burst`: lines that may follow each other at once; `per_second`: how fast that allowance comes
        back; `clock`: seconds.
        """
        self.suppressed = 0
        self._burst = float(burst)
        self._per_second = per_second
        self._clock = clock
        self._tokens = float(burst)
        self._since = clock()
        self._untold = 0

    def admits(self) -> bool:
        """Whether one more line may be logged now; a refusal is counted."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._since) * self._per_second)
        self._since = now
        if self._tokens < 1:
            self.suppressed += 1
            self._untold += 1
            return False
        self._tokens -= 1
        return True

    def warning(self, log: logging.Logger, message: str, *arguments: object) -> None:
        """Log a warning that a guest caused, or hold it back. `message` and `arguments` as `Logger.warning`
        takes them.
        """
        if not self.admits():
            return
        if self._untold:
            log.warning("%d warnings that a guest caused were held back", self._untold)
            self._untold = 0
        log.warning(message, *arguments, stacklevel=2)


guest_log = LogLimit()
"""The one limit of this process."""
