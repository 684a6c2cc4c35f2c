"""`shardio.interrupt.trigger`: an eventfd counts triggers, a saturated one still has its interrupt
pending.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from shardio.interrupt import EventFdTrigger, RecordingTrigger, Trigger


@pytest.fixture
def eventfd() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield fd
    os.close(fd)


def test_each_trigger_adds_one_to_the_eventfd(eventfd: int) -> None:
    trigger = EventFdTrigger(eventfd)

    trigger.trigger()
    trigger.trigger()

    assert os.eventfd_read(eventfd) == 2


def test_a_saturated_counter_counts_as_success(eventfd: int) -> None:
    os.eventfd_write(eventfd, 2**64 - 2)

    EventFdTrigger(eventfd).trigger()

    assert os.eventfd_read(eventfd) == 2**64 - 2


def test_a_closed_descriptor_is_an_error() -> None:
    fd = os.eventfd(0)
    trigger = EventFdTrigger(fd)
    os.close(fd)

    with pytest.raises(OSError, match="Bad file descriptor"):
        trigger.trigger()


def test_a_negative_descriptor_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        EventFdTrigger(-1)


def test_the_recording_trigger_counts() -> None:
    trigger = RecordingTrigger()

    trigger.trigger()
    trigger.trigger()

    assert trigger.count == 2


def test_both_are_triggers(eventfd: int) -> None:
    assert isinstance(EventFdTrigger(eventfd), Trigger)
    assert isinstance(RecordingTrigger(), Trigger)
