"""`shardio.interrupt.coalesce`: fewer interrupts, never a lost one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.errors import InterruptError
from shardio.interrupt import CoalescingTrigger, RecordingTrigger


class ManualTimers:
    """`loop.call_later` whose time passes when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waiting: list[tuple[float, Callable[[], None], ManualTimer]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> ManualTimer:
        timer = ManualTimer()
        self.waiting.append((self.now + delay, callback, timer))
        return timer

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [entry for entry in self.waiting if entry[0] <= self.now]
        self.waiting = [entry for entry in self.waiting if entry[0] > self.now]
        for _, callback, timer in due:
            timer.run(callback)


class ManualTimer:
    """A timer that can be cancelled."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def run(self, callback: Callable[[], None]) -> None:
        if not self.cancelled:
            callback()


def test_the_delay_ends_the_wait() -> None:
    inner, timers = RecordingTrigger(), ManualTimers()
    trigger = CoalescingTrigger(inner, count=10, delay=0.001, call_later=timers.call_later)
    trigger.trigger()
    trigger.trigger()
    before = inner.count
    timers.advance(0.001)

    assert (before, inner.count) == (0, 1)


def test_reaching_the_count_cancels_the_timer() -> None:
    inner, timers = RecordingTrigger(), ManualTimers()
    trigger = CoalescingTrigger(inner, count=2, delay=0.001, call_later=timers.call_later)
    trigger.trigger()
    trigger.trigger()
    timers.advance(1)

    assert inner.count == 1


def test_flush_with_nothing_waiting_triggers_nothing() -> None:
    inner = RecordingTrigger()
    CoalescingTrigger(inner, count=2).flush()

    assert inner.count == 0


@pytest.mark.parametrize(("count", "delay"), [(0, None), (1, -1.0), (1, 0.5)])
def test_impossible_settings_are_refused(count: int, delay: float | None) -> None:
    with pytest.raises(InterruptError, match="coalescing"):
        CoalescingTrigger(RecordingTrigger(), count, delay)


@given(st.lists(st.floats(0, 0.005), max_size=40), st.integers(1, 5))
def test_every_cause_is_followed_by_a_trigger_within_the_delay(gaps: list[float], count: int) -> None:
    inner, timers = RecordingTrigger(), ManualTimers()
    trigger = CoalescingTrigger(inner, count, delay=0.002, call_later=timers.call_later)
    for gap in gaps:
        timers.advance(gap)
        trigger.trigger()
    timers.advance(0.002)

    assert trigger.waiting == 0
    assert bool(inner.count) == bool(gaps)
    assert inner.count <= len(gaps)


def test_the_delay_is_counted_from_the_first_that_waits() -> None:
    inner, timers = RecordingTrigger(), ManualTimers()
    trigger = CoalescingTrigger(inner, count=2, delay=1.0, call_later=timers.call_later)
    trigger.trigger()
    trigger.trigger()
    timers.advance(0.5)
    trigger.trigger()
    timers.advance(0.5)
    early = inner.count
    timers.advance(0.5)

    assert (early, inner.count) == (1, 2)
