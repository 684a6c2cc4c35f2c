"""shardio.cli.stop: when a signal breaks off the main thread, and when it only leaves its mark."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from shardio.cli.stop import SIGNALS, StopRequested, StopRequests


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_while_armed_raises_in_the_main_thread(number: signal.Signals) -> None:
    with StopRequests() as stop, pytest.raises(StopRequested), stop.armed():
        signal.raise_signal(number)

    assert stop.signal == number


def test_signal_before_arming_is_raised_on_arming() -> None:
    with StopRequests() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopRequested), stop.armed():
            pytest.fail("armed in spite of the request")

    assert stop.signal == signal.SIGTERM


def test_signal_after_arming_changes_nothing() -> None:
    with StopRequests() as stop:
        with pytest.raises(StopRequested), stop.armed():
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)

    assert stop.signal == signal.SIGTERM


def test_leave_from_another_thread_wakes_the_main_one() -> None:
    never = threading.Event()
    with StopRequests() as stop:
        thread = threading.Thread(target=stop.leave)
        with pytest.raises(StopRequested), stop.armed():
            thread.start()
            never.wait(5.0)
        thread.join()

    assert stop.signal is None


@pytest.fixture
def ignored() -> Iterator[None]:
    """All of them are, as under nohup."""
    before = [signal.signal(number, signal.SIG_IGN) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("ignored")
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_was_ignored_stays_so(number: signal.Signals) -> None:
    with StopRequests() as stop, stop.armed():
        signal.raise_signal(number)

    assert stop.signal is None
    assert signal.getsignal(number) is signal.SIG_IGN


@pytest.mark.usefixtures("ignored")
def test_leave_works_where_signals_were_ignored() -> None:
    with StopRequests() as stop, pytest.raises(StopRequested), stop.armed():
        stop.leave()

    assert stop.signal is None


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequests():
        during = [signal.getsignal(number) for number in SIGNALS]

    assert during != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
