"""A guest's side of the CMOS clock."""

from __future__ import annotations

import datetime

from shardio.devices import CmosRtc
from tests.devices.support import ManualLoop, Ports, RecordingHost

SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY = 0, 2, 4, 6, 7, 8, 9, 0x32
ALARM_SECONDS, ALARM_MINUTES, ALARM_HOURS = 1, 3, 5
A, B, C, D = 0x0A, 0x0B, 0x0C, 0x0D
BINARY, HOURS_24, SET, UIE, AIE, PIE = 0x04, 0x02, 0x80, 0x10, 0x20, 0x40
DATE = (CENTURY, YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS)


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
