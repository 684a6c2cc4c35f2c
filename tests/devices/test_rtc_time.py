"""CmosRtc's time: across midnight, leap years, 12 hours and BCD, and as the guest sets it."""

from __future__ import annotations

import datetime
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.devices.rtc import (
    BINARY,
    DATE,
    DAY,
    HOURS,
    HOURS_24,
    MINUTES,
    MONTH,
    SECONDS,
    SET,
    WEEKDAY,
    B,
    Clock,
    utc,
)

MOMENTS = st.datetimes(
    datetime.datetime(1970, 1, 2), datetime.datetime(9999, 1, 1), timezones=st.just(datetime.UTC)
).map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000))
# Whole milliseconds: the host's time is a float, which has no place for the last microseconds of a late year.
MODES = st.sampled_from([0, BINARY, HOURS_24, BINARY | HOURS_24])


@given(MOMENTS, MODES)
def test_it_starts_with_the_hosts_time(moment, mode):
    clock = Clock(moment, mode)
    assert clock.shows(mode) == moment.replace(microsecond=0)
    assert clock.get(WEEKDAY) == moment.isoweekday() % 7 + 1


@given(MOMENTS, MODES, st.integers(0, 10**9))
def test_it_counts_as_the_calendar_does(moment, mode, seconds):
    clock = Clock(moment.replace(year=min(moment.year, 9900)), mode)
    before = clock.shows(mode)
    clock.loop.now += seconds
    after = before + datetime.timedelta(seconds=seconds)
    assert clock.shows(mode) == after
    assert clock.get(WEEKDAY) == after.isoweekday() % 7 + 1


@given(MOMENTS, MOMENTS, MODES, st.integers(-(10**6), 10**6))
def test_the_guest_sets_it_and_it_goes_on_from_there(start, wanted, mode, seconds):
    wanted = wanted.replace(year=min(max(wanted.year, 1971), 9990), microsecond=0)
    clock = Clock(start, mode)
    clock.set(B, mode | SET)
    shown = Clock(wanted, mode)
    for index in (*DATE, WEEKDAY):
        clock.set(index, shown.get(index))
    clock.loop.now += 1000
    assert clock.shows(mode) == wanted
    clock.set(B, mode)
    clock.loop.now += seconds
    assert clock.shows(mode) == wanted + datetime.timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("start", "after"),
    [
        (utc(2024, 2, 28, 23, 59, 59), "20 24 02 29 00 00 00"),
        (utc(2023, 2, 28, 23, 59, 59), "20 23 03 01 00 00 00"),
        (utc(2000, 2, 28, 23, 59, 59), "20 00 02 29 00 00 00"),
        (utc(2100, 2, 28, 23, 59, 59), "21 00 03 01 00 00 00"),
        (utc(1999, 12, 31, 23, 59, 59), "20 00 01 01 00 00 00"),
        (utc(2024, 4, 30, 23, 59, 59), "20 24 05 01 00 00 00"),
    ],
)
def test_midnight(start, after):
    clock = Clock(start)
    clock.loop.now += 1
    assert clock.date() == after


@pytest.mark.parametrize(
    ("hour", "bcd", "binary"),
    [(0, 0x12, 12), (1, 0x01, 1), (11, 0x11, 11), (12, 0x92, 0x8C), (23, 0x91, 0x8B)],
)
def test_twelve_hours(hour, bcd, binary):
    assert Clock(utc(2024, 1, 1, hour), 0).get(HOURS) == bcd
    assert Clock(utc(2024, 1, 1, hour), BINARY).get(HOURS) == binary


def test_noon_and_midnight_in_twelve_hours():
    clock = Clock(utc(2024, 1, 1, 11, 59, 59), 0)
    clock.loop.now += 1
    assert clock.get(HOURS) == 0x92
    clock.loop.now += 12 * 3600
    assert (clock.get(HOURS), clock.get(DAY)) == (0x12, 0x02)


def test_changing_the_mode_shows_the_same_time(clock):
    clock.set(B, BINARY)
    assert (clock.get(HOURS), clock.get(MINUTES)) == (0x80 | 11, 59)
    clock.set(B, HOURS_24)
    assert (clock.get(HOURS), clock.get(MINUTES)) == (0x23, 0x59)


def test_set_holds_the_registers_and_releasing_it_goes_on(clock):
    clock.set(B, HOURS_24 | SET)
    clock.loop.now += 100
    assert clock.get(SECONDS) == 0x58
    clock.set(B, HOURS_24)
    clock.loop.now += 1
    assert clock.get(SECONDS) == 0x59


def test_a_time_that_is_none_stays_until_the_next_second(clock):
    clock.set(MONTH, 0x99)
    clock.set(SECONDS, 0x77)
    assert (clock.get(MONTH), clock.get(SECONDS)) == (0x99, 0x77)
    clock.loop.now += 86400
    assert clock.shows(HOURS_24).month in (12, 1)


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255), st.floats(-1e6, 1e9)), max_size=30))
def test_no_write_breaks_it(writes):
    clock = Clock(utc(2024, 2, 28, 23, 59, 58))
    for index, value, seconds in writes:
        clock.set(index, value)
        clock.loop.now = max(clock.loop.now + seconds, 0.0)
        clock.get(index)
    assert 0 <= clock.get(SECONDS) <= 0xFF


def test_the_hosts_clock_may_step_back(clock):
    clock.get(SECONDS)
    clock.loop.now -= 3600
    assert clock.get(HOURS) == 0x22


def test_local_time(monkeypatch):
    monkeypatch.setenv("TZ", "XYZ-5")
    time.tzset()
    try:
        assert Clock(utc(2024, 1, 1, 12), utc=False).get(HOURS) == 0x17
        assert Clock(utc(2024, 1, 1, 12), utc=True).get(HOURS) == 0x12
    finally:
        monkeypatch.undo()
        time.tzset()
