"""`CoalescingTrigger`: fewer interrupts for a busy device, by count and by time, in front of any
`Trigger`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from shardio.errors import InterruptError
from shardio.interrupt.trigger import Trigger


class Timer(Protocol):
    """What `asyncio`'s `loop.call_later` returns."""

    def cancel(self) -> None:
        """The callback will not be called."""


class CoalescingTrigger:
    """Passes one trigger on for every `count`, or `delay` seconds after the first that waits, whichever is
    first.

    No cause is lost: whatever was triggered is followed by a trigger of `inner` within `delay`.

    >>> from shardio.interrupt import RecordingTrigger
    >>> inner = RecordingTrigger()
    >>> trigger = CoalescingTrigger(inner, count=3)
    >>> for _ in range(7):
    ...     trigger.trigger()
    >>> inner.count, trigger.waiting
    (2, 1)
    >>> trigger.flush()
    >>> inner.count, trigger.waiting
    (3, 0)
    """

    def __init__(
        self,
        inner: Trigger,
        count: int,
        delay: float | None = None,
        call_later: Callable[[float, Callable[[], None]], Timer] | None = None,
    ) -> None:
        """`count`: triggers that make one (at least 1). `delay`: seconds that one waits at most; needs
        `call_later`, `asyncio`'s `loop.call_later`. Without a delay the owner calls `flush` when its work
        is done.

        Raises InterruptError for a count below 1, a negative delay, or a delay without `call_later`.
        """
        if count < 1:
            raise InterruptError("coalescing", f"count {count} is below 1", "1 passes every trigger on")
        if delay is not None and (delay < 0 or call_later is None):
            raise InterruptError("coalescing", f"delay {delay} s", "give a delay of 0 or more and call_later")
        self._inner = inner
        self._count = count
        self._delay = delay
        self._call_later = call_later
        self._timer: Timer | None = None
        self.waiting = 0

    def trigger(self) -> None:
        """Count one; pass one on when `count` are reached."""
        self.waiting += 1
        if self.waiting >= self._count:
            self.flush()
        elif self._timer is None and self._delay is not None and self._call_later is not None:
            self._timer = self._call_later(self._delay, self.flush)

    def flush(self) -> None:
        """Pass one on now if any waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.waiting:
            self.waiting = 0
            self._inner.trigger()
