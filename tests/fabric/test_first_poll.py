"""How long a client waits before its first look, against a model of what a look costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio._core import ffi, lib

STEAL = 100
"""Ticks that a look at a line costs which its owner still works on."""


def fresh() -> Any:
    return ffi.new("struct sio_first_poll *")


def wait(p: Any, service: int) -> int:
    """One wait for a reply that takes `service` ticks undisturbed; how long it took."""
    if p.ticks >= service:
        took = int(p.ticks)
        lib.sio_first_poll_hit(p)
        return took
    if p.ticks:
        lib.sio_first_poll_miss(p)
    return service + STEAL


def run(p: Any, waits: int, service: Callable[[int], int]) -> list[int]:
    """`waits` waits, one in `SIO_FIRST_POLL_EVERY` of them timed; what all of them took."""
    took = []
    for n in range(waits):
        took.append(wait(p, service(n)))
        if n % lib.SIO_FIRST_POLL_EVERY == 8:
            lib.sio_first_poll_learn(p, took[-1])
    return took


TRIAL = 2 * lib.SIO_FIRST_POLL_TURNS * lib.SIO_FIRST_POLL_EVERY
"""Accesses of a trial."""


@pytest.mark.parametrize("service", [120, 300, 900])
def test_it_follows_a_service_time_where_early_looks_disturb(service: int) -> None:
    p = fresh()
    run(p, TRIAL, lambda n: service)
    assert p.ticks

    took = run(p, 4096, lambda n: service)

    average = sum(took) / len(took)
    assert average < 1.05 * service + STEAL / 4, "most waits end soon after the reply, undisturbed"


@pytest.mark.parametrize(
    ("at_once", "patient", "chosen"), [(60, 80, False), (80, 60, True), (640, 635, False)]
)
def test_waiting_has_to_be_better_than_looking_at_once(at_once: int, patient: int, chosen: bool) -> None:
    p = fresh()
    for _ in range(2 * lib.SIO_FIRST_POLL_TURNS):
        lib.sio_first_poll_learn(p, patient if p.ticks else at_once)
    assert (p.ticks != 0, p.rest) == (chosen, lib.SIO_FIRST_POLL_REST)


def test_what_was_chosen_is_tried_again() -> None:
    p = fresh()
    for at_once, patient, chosen in ((60, 80, False), (80, 60, True), (60, 80, False)):
        for _ in range(p.rest + 2 * lib.SIO_FIRST_POLL_TURNS):
            lib.sio_first_poll_learn(p, patient if p.ticks else at_once)
        assert (p.ticks != 0) == chosen


def test_a_service_time_that_changes_is_followed() -> None:
    p = fresh()
    for service in (300, 120, 900):
        run(p, TRIAL + 16 * p.rest, lambda n, ticks=service: ticks)
        assert service * 0.9 < p.followed < service * 1.1 + 8


def test_service_times_beyond_the_most_that_is_waited_for_leave_it_bounded() -> None:
    p = fresh()
    run(p, 20_000, lambda n: 10**6)
    assert p.ticks <= lib.SIO_FIRST_POLL_MOST * 33 // 32 + 4


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2**64 - 1)), max_size=300), st.integers(0, 2**32 - 1))
def test_it_is_never_beyond_its_bounds_whatever_the_waits(waits: list[tuple[bool, int]], rest: int) -> None:
    p = fresh()
    p.rest = rest
    for hit, ticks in waits:
        (lib.sio_first_poll_hit if hit else lib.sio_first_poll_miss)(p)
        lib.sio_first_poll_learn(p, ticks)
        assert p.ticks <= lib.SIO_FIRST_POLL_MOST * 33 // 32 + 4
        assert p.n < 2 * lib.SIO_FIRST_POLL_TURNS
