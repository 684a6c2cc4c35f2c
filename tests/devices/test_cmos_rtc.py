"""CmosRtc: time across midnight, leap years, 12 hours and BCD; alarms, interrupts and flags; what firmware
reads.
"""

from __future__ import annotations

import datetime
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardio import memory
from shardio.devices import CmosRtc, DeviceOptionError
from shardio.devices.cmos_layout import LOW_MEMORY_END
from tests.devices.conftest import ManualLoop, Ports, RecordingHost

SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY = 0, 2, 4, 6, 7, 8, 9, 0x32
ALARM_SECONDS, ALARM_MINUTES, ALARM_HOURS = 1, 3, 5
A, B, C, D = 0x0A, 0x0B, 0x0C, 0x0D
BINARY, HOURS_24, SET, UIE, AIE, PIE = 0x04, 0x02, 0x80, 0x10, 0x20, 0x40
DATE = (CENTURY, YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS)
MOMENTS = st.datetimes(
    datetime.datetime(1970, 1, 2), datetime.datetime(9999, 1, 1), timezones=st.just(datetime.UTC)
).map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000))
# Whole milliseconds: the host's time is a float, which has no place for the last microseconds of a late year.
MODES = st.sampled_from([0, BINARY, HOURS_24, BINARY | HOURS_24])


class Clock:
    """A CMOS RTC on its ports, on a loop whose time is the host's."""

    def __init__(self, moment: datetime.datetime, mode: int = HOURS_24, **options: object) -> None:
        self.loop = ManualLoop(moment.timestamp())
        self.host = RecordingHost(self.loop)
        self.rtc = CmosRtc(**options)
        self.rtc.clock = self.loop.time
        self.ports = Ports(self.rtc, 0x70)
        self.set(B, mode)
        self.get(C)
        self.rtc.attach(self.host)

    def get(self, index: int) -> int:
        self.ports.write(0, index)
        return self.ports.read(1)

    def set(self, index: int, value: int) -> None:
        self.ports.write(0, index)
        self.ports.write(1, value)

    def date(self) -> str:
        return " ".join(f"{self.get(index):02x}" for index in DATE)

    def shows(self, mode: int) -> datetime.datetime:
        """What a guest makes of the registers."""

        def number(index: int, mask: int = 0xFF) -> int:
            byte = self.get(index) & mask
            return byte if mode & BINARY else (byte >> 4) * 10 + (byte & 15)

        hour = number(HOURS) if mode & HOURS_24 else number(HOURS, 0x7F) % 12 + 12 * (self.get(HOURS) >> 7)
        year = number(CENTURY) * 100 + number(YEAR)
        return datetime.datetime(
            year, number(MONTH), number(DAY), hour, number(MINUTES), number(SECONDS), tzinfo=datetime.UTC
        )


def utc(*fields: int) -> datetime.datetime:
    return datetime.datetime(*fields, tzinfo=datetime.UTC)


@pytest.fixture
def clock():
    return Clock(utc(2024, 2, 28, 23, 59, 58))


# --- time -------------------------------------------------------------------------------------------------


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


@given(MOMENTS, MOMENTS, MODES, st.integers(-10**6, 10**6))
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


# --- registers --------------------------------------------------------------------------------------------


def test_the_registers_at_the_start(clock):
    assert [clock.get(index) for index in (A, B, C, D)] == [0x26, HOURS_24, 0, 0x80]


def test_uip_only_shortly_before_the_second_ends(clock):
    clock.loop.now += 0.9
    assert clock.get(A) & 0x80 == 0
    clock.loop.now += 0.0985
    assert clock.get(A) & 0x80
    clock.loop.now += 0.002
    assert clock.get(A) & 0x80 == 0


def test_uip_is_off_while_set(clock):
    clock.set(B, SET | HOURS_24)
    clock.loop.now += 0.9985
    assert clock.get(A) & 0x80 == 0


def test_uip_c_and_d_are_read_only(clock):
    clock.set(A, 0xA6)
    clock.set(C, 0xFF)
    clock.set(D, 0x00)
    assert [clock.get(index) for index in (A, C, D)] == [0x26, 0, 0x80]


def test_the_divider_reset_stops_it_and_the_first_second_is_half(clock):
    clock.set(A, 0x66)
    clock.loop.now += 10
    assert clock.get(SECONDS) == 0x58
    clock.set(A, 0x26)
    clock.loop.now += 0.6
    assert clock.get(SECONDS) == 0x59


@pytest.mark.parametrize("index", [0x0E, 0x0F, 0x33, 0x40, 0x7F])
def test_nvram_keeps_what_is_written(clock, index):
    clock.set(index, 0xA5)
    assert clock.get(index) == 0xA5


def test_the_nmi_bit_of_the_index_is_ignored(clock):
    clock.set(0x80 | 0x40, 0x12)
    assert clock.get(0x40) == 0x12


def test_the_index_port_is_write_only(clock):
    assert clock.ports.read(0) == 0xFF
    assert clock.ports.read(0, size=2) & 0xFF == 0xFF


def test_a_16_bit_write_is_index_and_data(clock):
    clock.ports.write(0, 0x77_40, size=2)
    assert clock.get(0x40) == 0x77


# --- flags and interrupts ---------------------------------------------------------------------------------


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
def test_an_alarm_comes_when_a_search_by_seconds_says(now, alarm, dont_care):
    clock = Clock(utc(2024, 1, 1) + datetime.timedelta(seconds=now), BINARY | HOURS_24)
    wanted = [alarm // 3600, alarm // 60 % 60, alarm % 60]
    codes = [0xC0 if free else value for free, value in zip(dont_care, wanted, strict=True)]
    for index, code in zip((ALARM_HOURS, ALARM_MINUTES, ALARM_SECONDS), codes, strict=True):
        clock.set(index, code)

    def matches(second: int) -> bool:
        shown = (second // 3600 % 24, second // 60 % 60, second % 60)
        return all(code >= 0xC0 or code == value for code, value in zip(codes, shown, strict=True))

    wait = next(step for step in range(1, 86401) if matches(now + step))
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


# --- what firmware reads ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("64M", {0x15: 640, 0x17: 64512, 0x30: 64512, 0x34: 768}),
        ("512K", {0x15: 512, 0x17: 0, 0x30: 0, 0x34: 0}),
        ("2G", {0x15: 640, 0x17: 0xFFFF, 0x30: 0xFFFF, 0x34: 32512}),
        (8 << 30, {0x15: 640, 0x17: 0xFFFF, 0x30: 0xFFFF, 0x34: 48896}),
    ],
)
def test_memory_sizes(size, expected):
    clock = Clock(utc(2024, 1, 1), memory=size)
    assert {index: clock.get(index) | clock.get(index + 1) << 8 for index in expected} == expected


def test_memory_above_4_gib():
    clock = Clock(utc(2024, 1, 1), memory="8G")
    assert sum(clock.get(0x5B + byte) << 8 * byte for byte in range(3)) << 16 == 5 << 30


def test_low_memory_ends_where_guest_memory_says():
    assert memory.LOW_MEMORY_END == LOW_MEMORY_END


def test_the_number_of_cpus():
    assert Clock(utc(2024, 1, 1), vcpus=4).get(0x5F) == 3


def test_the_checksum_covers_0x10_to_0x2d(clock):
    total = sum(clock.get(index) for index in range(0x10, 0x2E))
    assert clock.get(0x2E) << 8 | clock.get(0x2F) == total


@pytest.mark.parametrize(
    "options", [{"memory": "lots"}, {"memory": -1}, {"vcpus": 0}, {"vcpus": 257}, {"memory": True}]
)
def test_an_option_out_of_range_is_refused_by_name(options):
    with pytest.raises(DeviceOptionError) as caught:
        CmosRtc(**options)
    assert caught.value.option in options
