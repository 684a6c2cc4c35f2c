"""Life: who waits for a machine's end hears of it, and of signals meanwhile."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from shardio.dispatcher.life import Life
from shardio.dispatcher.statistics import ExitInfo

HALTED, RESET = ExitInfo("halted"), ExitInfo("reset")


class Heard(Exception):
    """A signal's handler ran."""


@pytest.fixture
def raising() -> Iterator[None]:
    """SIGUSR1 raises `Heard` in the main thread."""

    def handle(*_: object) -> None:
        raise Heard

    before = signal.signal(signal.SIGUSR1, handle)
    yield
    signal.signal(signal.SIGUSR1, before)


def in_wait(thread: threading.Thread) -> bool:
    """Whether that thread executes `Life.wait`."""
    assert thread.ident is not None
    frame = sys._current_frames().get(thread.ident)
    return frame is not None and frame.f_code is Life.wait.__code__


def test_the_first_end_counts() -> None:
    life = Life()

    life.end(HALTED)
    life.end(RESET)

    assert [life.wait(None), life.wait(0.0)] == [HALTED, HALTED]


def test_without_an_end_it_waits_as_long_as_it_was_told() -> None:
    assert Life().wait(0.01) is None


def test_every_waiting_thread_hears_of_the_end() -> None:
    life, heard = Life(), []
    threads = [threading.Thread(target=lambda: heard.append(life.wait(30.0))) for _ in range(3)]
    for thread in threads:
        thread.start()

    life.end(HALTED)
    for thread in threads:
        thread.join(30.0)

    assert heard == [HALTED] * 3


def test_a_signal_that_did_not_wake_the_waiting_thread_is_heard(raising: None) -> None:
    """A signal that comes right before the thread sleeps wakes it no more than one that another took."""
    main = threading.current_thread()

    def interrupt() -> None:
        while not in_wait(main):
            pass
        signal.raise_signal(signal.SIGUSR1)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Heard):
        Life().wait(30.0)
    thread.join(30.0)


def test_a_wait_that_a_signal_broke_off_keeps_no_other_from_the_end(raising: None) -> None:
    life, main = Life(), threading.current_thread()

    def interrupt() -> None:
        while not in_wait(main):
            pass
        signal.pthread_kill(main.ident, signal.SIGUSR1)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Heard):
        life.wait(30.0)
    thread.join(30.0)
    life.end(HALTED)

    assert life.wait(30.0) == HALTED
