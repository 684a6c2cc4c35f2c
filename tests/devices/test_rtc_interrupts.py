"""CmosRtc's flags, alarms and interrupts, and its timer."""

from __future__ import annotations

import datetime
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardio.devices import CmosRtc
from tests.devices.rtc import (
    AIE,
    ALARM_HOURS,
    ALARM_MINUTES,
    ALARM_SECONDS,
    BINARY,
    HOURS_24,
    PIE,
    SET,
    UIE,
    A,
    B,
    C,
    Clock,
    utc,
)
from tests.devices.support import Ports


def test_flags_are_set_without_being_enabled_and_reading_c_clears_them(clock):
    clock.loop.now += 1
    assert clock.get(C) == 0x50
    assert clock.get(C) == 0
    assert clock.host.trigger.count == 0


def test_the_update_ended_interrupt_once_until_c_is_read(clock):
    clock.set(B, HOURS_24 | UIE)
    clock.loop.advance(0.9)
    assert clock.host.trigger.count == 0
    clock.loop.advance(5)
    assert clock.host.trigger.count == 1
    assert clock.get(C) & 0x90 == 0x90
    clock.loop.advance(1)
    assert clock.host.trigger.count == 2


@pytest.mark.parametrize(("rate", "hertz"), [(6, 1024), (15, 2), (3, 8192), (1, 256), (2, 128)])
def test_the_periodic_interrupt_at_its_rate(clock, rate, hertz):
    clock.set(A, 0x20 | rate)
    clock.set(B, HOURS_24 | PIE)
    for _ in range(8):
        before = clock.host.trigger.count
        clock.loop.advance(1 / hertz)
        assert clock.host.trigger.count == before + 1
        assert clock.get(C) & 0xC0 == 0xC0


def test_rate_0_has_no_periodic_interrupt(clock):
    clock.set(A, 0x20)
    clock.set(B, HOURS_24 | PIE)
    clock.loop.advance(10)
    assert clock.host.trigger.count == 0
    assert clock.loop.pending == 0


@pytest.mark.parametrize(
    ("hours", "minutes", "seconds", "wait"),
    [
        (0x23, 0x59, 0x59, 1),
        (0x00, 0x00, 0x00, 2),
        (0xFF, 0xFF, 0xFF, 1),
        (0xC0, 0xC0, 0x05, 7),
        (0xC0, 0x30, 0x00, 1802),
        (0x12, 0xFF, 0x00, 12 * 3600 + 2),
        (0x23, 0x59, 0x58, 86400),
        (0xFF, 0x59, 0x58, 3600),
    ],
)
def test_the_alarm_and_its_dont_care_codes(clock, hours, minutes, seconds, wait):
    clock.set(ALARM_HOURS, hours)
    clock.set(ALARM_MINUTES, minutes)
    clock.set(ALARM_SECONDS, seconds)
    clock.set(B, HOURS_24 | AIE)
    clock.loop.advance(wait - 0.001)
    assert clock.host.trigger.count == 0
    clock.loop.advance(0.002)
    assert clock.host.trigger.count == 1
    assert clock.get(C) & 0xA0 == 0xA0


def test_an_alarm_in_twelve_hours():
    clock = Clock(utc(2024, 1, 1, 10, 59, 59), 0)
    clock.set(ALARM_HOURS, 0x91)
    clock.set(ALARM_MINUTES, 0x00)
    clock.set(ALARM_SECONDS, 0x00)
    clock.set(B, AIE)
    clock.loop.advance(12 * 3600)
    assert clock.host.trigger.count == 0
    clock.loop.advance(2)
    assert clock.host.trigger.count == 1


def test_an_alarm_that_is_no_time_never_comes(clock):
    clock.set(ALARM_HOURS, 0x45)
    clock.set(B, HOURS_24 | AIE)
    clock.loop.now += 200_000
    assert clock.get(C) & 0x20 == 0
    assert clock.loop.pending == 0


@settings(max_examples=30)
@given(st.integers(0, 86399), st.integers(0, 86399), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_an_alarm_comes_at_the_next_time_that_it_matches(now, alarm, dont_care):
    clock = Clock(utc(2024, 1, 1) + datetime.timedelta(seconds=now), BINARY | HOURS_24)
    wanted = [alarm // 3600, alarm // 60 % 60, alarm % 60]
    codes = [0xC0 if free else value for free, value in zip(dont_care, wanted, strict=True)]
    for index, code in zip((ALARM_HOURS, ALARM_MINUTES, ALARM_SECONDS), codes, strict=True):
        clock.set(index, code)

    fields = zip(dont_care, wanted, (24, 60, 60), strict=True)
    shown = [range(limit) if free else (value,) for free, value, limit in fields]
    wait = min((3600 * h + 60 * m + s - now - 1) % 86400 + 1 for h, m, s in itertools.product(*shown))
    clock.loop.now += wait - 1
    assert clock.get(C) & 0x20 == 0
    clock.loop.now += 1
    assert clock.get(C) & 0x20


def test_enabling_while_the_flag_is_set_interrupts_at_once(clock):
    clock.loop.now += 1
    clock.set(B, HOURS_24 | UIE)
    assert clock.host.trigger.count == 1


def test_set_switches_the_update_interrupt_off(clock):
    clock.set(B, HOURS_24 | UIE)
    clock.set(B, HOURS_24 | UIE | SET)
    assert clock.get(B) == HOURS_24 | SET
    assert clock.loop.pending == 0


def test_detach_cancels_the_timer(clock):
    clock.set(B, HOURS_24 | UIE)
    clock.rtc.detach()
    assert clock.loop.pending == 0


def test_a_restored_clock_has_gone_on_and_raises_what_is_pending(clock):
    clock.set(B, HOURS_24 | UIE)
    clock.set(0x40, 0x99)
    state = clock.rtc.snapshot()
    clock.rtc.detach()
    clock.loop.now += 2
    successor = CmosRtc()
    successor.clock = clock.loop.time
    successor.restore(state)
    successor.attach(clock.host)
    clock.ports = Ports(successor, 0x70)
    assert clock.host.trigger.count == 1
    assert clock.date() == "20 24 02 29 00 00 00"
    assert clock.get(0x40) == 0x99
    successor.detach()


def test_an_alarm_follows_the_hosts_clock_when_that_is_set(clock):
    clock.set(ALARM_HOURS, 0x12)
    clock.set(ALARM_MINUTES, 0x00)
    clock.set(ALARM_SECONDS, 0x00)
    clock.set(B, HOURS_24 | AIE)
    clock.rtc.clock = lambda: clock.loop.time() + 13 * 3600
    clock.loop.advance(61)
    assert clock.host.trigger.count == 1


def test_a_clock_that_steps_back_sets_no_flag(clock):
    clock.set(B, HOURS_24 | UIE)
    clock.loop.now -= 3600
    assert clock.get(C) == 0
