"""The time registers of an MC146818 as bytes: decoding, counting on, and when an alarm comes next.

The ten bytes are the truth, as in the chip: what the guest writes stays as it is, even if it is no date,
until the next second counts it on. Nothing here knows of ports, interrupts or the host's clock.

Source: Motorola MC146818 data sheet (1984), "Time, calendar and alarm locations"; the century byte is the
PC's.
"""

from __future__ import annotations

import datetime

SECONDS = 0
SECONDS_ALARM = 1
MINUTES = 2
MINUTES_ALARM = 3
HOURS = 4
HOURS_ALARM = 5
DAY_OF_WEEK = 6
DAY = 7
MONTH = 8
YEAR = 9
CENTURY = 0x32

B_BINARY = 0x04
B_24_HOURS = 0x02

_PM = 0x80
_DO_NOT_CARE = 0xC0
_SECONDS_A_DAY = 86400
_CYCLE_YEARS = 400  # the calendar repeats, weekdays included
_CLOCK = (SECONDS, MINUTES, HOURS)


def encode(value: int, mode: int) -> int:
    """`value` (0-99) as a register byte: binary or BCD by bit DM of register B (`mode`).

    >>> hex(encode(59, 0)), hex(encode(59, B_BINARY))
    ('0x59', '0x3b')
    """
    return value if mode & B_BINARY else value // 10 << 4 | value % 10


def decode(byte: int, mode: int) -> int:
    """The number in a register byte; a byte that is no BCD gives some number, as adders would.

    >>> decode(0x59, 0)
    59
    """
    return byte if mode & B_BINARY else (byte >> 4) * 10 + (byte & 0x0F)


def encode_hour(hour: int, mode: int) -> int:
    """`hour` (0-23) as the hours byte: 0-23, or 1-12 with bit 7 for PM, by bit 24/12 of register B.

    >>> [hex(encode_hour(hour, 0)) for hour in (0, 1, 12, 23)]
    ['0x12', '0x1', '0x92', '0x91']
    """
    if mode & B_24_HOURS:
        return encode(hour, mode)
    return encode((hour + 11) % 12 + 1, mode) | (_PM if hour >= 12 else 0)


def decode_hour(byte: int, mode: int) -> int:
    """The hour (0-23 for a valid byte) in the hours byte.

    >>> decode_hour(0x12, 0), decode_hour(0x92, 0), decode_hour(0x23, B_24_HOURS)
    (0, 12, 23)
    """
    if mode & B_24_HOURS:
        return decode(byte, mode)
    return decode(byte & ~_PM, mode) % 12 + (12 if byte & _PM else 0)


def load(registers: bytearray, moment: datetime.datetime, mode: int) -> None:
    """Set the time and date registers to `moment`."""
    registers[SECONDS] = encode(moment.second, mode)
    registers[MINUTES] = encode(moment.minute, mode)
    registers[HOURS] = encode_hour(moment.hour, mode)
    registers[DAY_OF_WEEK] = encode(moment.isoweekday() % 7 + 1, mode)
    _store_date(registers, moment.year, moment.month, moment.day, mode)


def second_of_day(registers: bytearray, mode: int) -> int:
    """The seconds since midnight that the registers show (0 to 86399 for valid ones)."""
    hour, minute = decode_hour(registers[HOURS], mode), decode(registers[MINUTES], mode)
    return hour * 3600 + minute * 60 + decode(registers[SECONDS], mode)


def advance(registers: bytearray, seconds: int, mode: int) -> None:
    """Count the registers on by `seconds`; backwards when negative.

    Values that are no time or date are taken for the nearest one first (month 13 for December) or carried
    over (the 31st of June is the 1st of July).
    """
    days, clock = divmod(second_of_day(registers, mode) + seconds, _SECONDS_A_DAY)
    registers[SECONDS] = encode(clock % 60, mode)
    registers[MINUTES] = encode(clock // 60 % 60, mode)
    registers[HOURS] = encode_hour(clock // 3600, mode)
    if days == 0:
        return
    weekday = (decode(registers[DAY_OF_WEEK], mode) - 1 + days) % 7 + 1
    registers[DAY_OF_WEEK] = encode(weekday, mode)
    year = decode(registers[CENTURY], mode) % 100 * 100 + decode(registers[YEAR], mode) % 100
    month = min(max(decode(registers[MONTH], mode), 1), 12)
    day = decode(registers[DAY], mode)
    # Computed in a year that datetime knows, and moved back: all years are equal modulo the calendar's cycle.
    cycles, days_left = divmod(days, 146_097)
    near = datetime.date(2000 + year % _CYCLE_YEARS, month, 1) + datetime.timedelta(days_left + day - 1)
    year += near.year - (2000 + year % _CYCLE_YEARS) + cycles * _CYCLE_YEARS
    _store_date(registers, year, near.month, near.day, mode)


def convert(registers: bytearray, old: int, new: int) -> None:
    """Show the same time and date in another mode of register B; the alarm is the guest's to write again."""
    registers[HOURS] = encode_hour(decode_hour(registers[HOURS], old) % 24, new)
    for each in (SECONDS, MINUTES, DAY_OF_WEEK, DAY, MONTH, YEAR, CENTURY):
        registers[each] = encode(decode(registers[each], old) % 100, new)


def seconds_to_alarm(registers: bytearray, mode: int) -> int | None:
    """Seconds (1 to 86400) until the time next matches the alarm registers; None when it never does.

    An alarm byte of 0xC0 or more matches everything.
    """
    wanted = (
        _matching(registers[HOURS_ALARM], 24, [encode_hour(hour, mode) for hour in range(24)]),
        _matching(registers[MINUTES_ALARM], 60, [encode(minute, mode) for minute in range(60)]),
        _matching(registers[SECONDS_ALARM], 60, [encode(second, mode) for second in range(60)]),
    )
    if not all(wanted):
        return None
    now = second_of_day(registers, mode) % _SECONDS_A_DAY
    return _next_match((now + 1) % _SECONDS_A_DAY, *wanted) + 1


def _matching(alarm: int, count: int, shown: list[int]) -> list[int]:
    """The values 0 to `count` - 1 whose register bytes `shown` match the alarm byte."""
    return [value for value in range(count) if alarm >= _DO_NOT_CARE or shown[value] == alarm]


def _next_match(start: int, hours: list[int], minutes: list[int], seconds: list[int]) -> int:
    """Seconds from `start` (a second of the day) to the first match at or after it."""
    hour, minute, second = start // 3600, start // 60 % 60, start % 60
    later_second = min((s for s in seconds if s >= second), default=None)
    if hour in hours and minute in minutes and later_second is not None:
        return later_second - second
    later_minute = min((m for m in minutes if m > minute), default=None)
    if hour in hours and later_minute is not None:
        return (later_minute - minute) * 60 + seconds[0] - second
    hours_on = min((h - hour - 1) % 24 + 1 for h in hours)
    return (hours_on * 60 + minutes[0] - minute) * 60 + seconds[0] - second


def _store_date(registers: bytearray, year: int, month: int, day: int, mode: int) -> None:
    registers[DAY] = encode(day, mode)
    registers[MONTH] = encode(month, mode)
    registers[YEAR] = encode(year % 100, mode)
    registers[CENTURY] = encode(year // 100 % 100, mode)
