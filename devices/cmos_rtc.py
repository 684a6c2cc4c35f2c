"""`CmosRtc`: the PC's real-time clock and the 128 bytes of CMOS memory around it, at ports 0x70 and 0x71.

The registers are computed when they are looked at: `_sync()` counts them on by the host's clock and sets the
flags that the time in between would have set. A loop timer exists only while an enabled interrupt is to come.

Source: Motorola MC146818 data sheet (1984). Of its clock rates only the PC's 32768 Hz crystal is modelled.
"""

from __future__ import annotations

import asyncio
import datetime
import math
import time
from collections.abc import Callable

import msgspec

from shardio.device import DeviceHost, MutDevicePio
from shardio.devices import rtc_time as rtc
from shardio.devices.cmos_layout import describe_machine
from shardio.devices.options import in_range, memory_size

REGISTER_A = 0x0A
REGISTER_B = 0x0B
REGISTER_C = 0x0C
REGISTER_D = 0x0D

A_UIP = 0x80
A_RATE = 0x0F
A_DIVIDER_RESET = 0x60
B_SET = 0x80
B_UIE = 0x10
C_PF = 0x40
C_AF = 0x20
C_UF = 0x10
C_IRQF = 0x80
D_VRT = 0x80

_INTERRUPTS = C_PF | C_AF | C_UF  # the same bits enable them in register B
_MODE = rtc.B_BINARY | rtc.B_24_HOURS
_TIME = (rtc.SECONDS, rtc.MINUTES, rtc.HOURS, rtc.DAY_OF_WEEK, rtc.DAY, rtc.MONTH, rtc.YEAR, rtc.CENTURY)
_UPDATE_S = 0.000244 + 0.001984  # UIP rises 244 us before an update cycle of 1984 us
_LONGEST_SLEEP_S = 60.0  # so that an alarm follows the host's clock when that is set


class RtcState(msgspec.Struct):
    """All that the guest can observe: the 128 bytes, the index port, and how they hang on the host's clock.

    `second` is the host time (seconds since 1970) at which the shown second began, None before the first
    access; `tick` counts periods of the periodic rate.
    """

    memory: bytes
    index: int
    second: float | None
    tick: int


class CmosRtc(MutDevicePio):
    """An MC146818 on ISA: index at offset 0 (bit 7, the PC's NMI mask, has no effect), data at offset 1.

    `clock` gives the host's time in seconds since 1970; a test puts its own there before the first access.
    """

    compatible = "motorola,mc146818"
    pio_size = 2
    persistent, state_type = 1024, RtcState
    unguarded_reads = frozenset((0,))

    def __init__(self, memory: int | str = "64M", vcpus: int = 1, utc: bool = True) -> None:
        """`memory`: the guest's RAM in bytes or as "64M", `vcpus`: how many (1 to 256), both shown to
        firmware; `utc`: whether the clock starts with UTC, else with the host's local time.

        Raises DeviceOptionError for an unreadable size or a count out of range.
        """
        size = memory_size(memory, device="CmosRtc")
        self.clock: Callable[[], float] = time.time
        self._utc = utc
        self._bytes = bytearray(128)
        describe_machine(self._bytes, size, in_range(vcpus, 1, 256, device="CmosRtc", option="vcpus"))
        self._bytes[REGISTER_A] = 0x26
        self._bytes[REGISTER_B] = rtc.B_24_HOURS
        self._bytes[REGISTER_D] = D_VRT
        self._index = 0
        self._second: float | None = None
        self._tick = 0
        self._asserted = False
        self._host: DeviceHost | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- the owner shard
    # -------------------------------------------------------------------------------------

    def attach(self, host: DeviceHost) -> None:
        """Raise interrupts through `host.trigger`, by timers of `host.loop`, from now on."""
        self._host, self._loop = host, host.loop
        self._revive()

    def detach(self) -> None:
        """Cancel the timer; the time goes on."""
        self._cancel()
        self._host, self._loop = None, None

    def snapshot(self) -> RtcState:
        """A copy of the state."""
        return RtcState(bytes(self._bytes), self._index, self._second, self._tick)

    def restore(self, state: RtcState) -> None:
        """Take over `state`; the clock has gone on since it was taken."""
        self._bytes[:] = state.memory
        self._index, self._second, self._tick = state.index, state.second, state.tick
        self._revive()

    # --- the guest
    # -------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """`size` bytes from `offset`, little-endian. The index port is write-only and reads 0xFF."""
        value = 0
        for i in range(size):
            value |= (self._read_data() if offset + i == 1 else 0xFF) << 8 * i
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """`size` bytes to `offset`, little-endian: a 16-bit write to the index port is an index and its
        data.
        """
        for i in range(size):
            byte = value >> 8 * i & 0xFF
            if offset + i == 0:
                self._index = byte & 0x7F
            elif offset + i == 1:
                self._write_data(byte)

    def _read_data(self) -> int:
        index = self._index
        if index > REGISTER_D and index != rtc.CENTURY:
            return self._bytes[index]
        now = self._sync()
        if index == REGISTER_A:
            return self._bytes[REGISTER_A] | (A_UIP if self._updating(now) else 0)
        if index != REGISTER_C:
            return self._bytes[index]
        flags = self._bytes[REGISTER_C]
        self._bytes[REGISTER_C] = 0
        interrupting = flags & self._bytes[REGISTER_B]
        self._signal(now)
        return flags | (C_IRQF if interrupting else 0)

    def _write_data(self, value: int) -> None:
        index = self._index
        if index > REGISTER_D and index != rtc.CENTURY:
            self._bytes[index] = value
            return
        now = self._sync()
        if index == REGISTER_A:
            self._write_a(value & ~A_UIP, now)
        elif index == REGISTER_B:
            self._write_b(value)
        elif index not in (REGISTER_C, REGISTER_D):
            self._bytes[index] = value
        self._signal(now)

    def _write_a(self, value: int, now: float) -> None:
        was_reset = self._divider_reset
        self._bytes[REGISTER_A] = value
        if was_reset and not self._divider_reset:
            # The first update comes half a second after the divider starts.
            self._second = now - 0.5
        self._tick = math.floor(now * self._rate)

    def _write_b(self, value: int) -> None:
        old = self._bytes[REGISTER_B]
        if (old ^ value) & _MODE:
            rtc.convert(self._bytes, old, value)
        if value & B_SET:
            value &= ~B_UIE
        self._bytes[REGISTER_B] = value

    # --- the clock
    # -------------------------------------------------------------------------------------------

    @property
    def _divider_reset(self) -> bool:
        return self._bytes[REGISTER_A] & A_DIVIDER_RESET == A_DIVIDER_RESET

    @property
    def _stopped(self) -> bool:
        """Whether the time registers stand still, for the guest to set them."""
        return bool(self._bytes[REGISTER_B] & B_SET) or self._divider_reset

    @property
    def _rate(self) -> int:
        """The periodic rate in Hz, 0 for none."""
        selected = self._bytes[REGISTER_A] & A_RATE
        if not selected or self._divider_reset:
            return 0
        # With this crystal the two fastest selections are no faster than the eighth and ninth.
        return 32768 >> (selected + 7 if selected <= 2 else selected) - 1

    def _updating(self, now: float) -> bool:
        return self._second is not None and not self._stopped and now > self._second + 1 - _UPDATE_S

    def _sync(self) -> float:
        """Count the registers on to the host's time, which is returned, and set the flags on the way."""
        now = self.clock()
        if self._second is None:
            zone = datetime.UTC if self._utc else None
            rtc.load(self._bytes, datetime.datetime.fromtimestamp(now, zone), self._bytes[REGISTER_B])
            self._second = float(math.floor(now))
            self._tick = math.floor(now * self._rate)
            return now
        passed = math.floor(now - self._second)
        if passed:
            self._second += passed
            if not self._stopped:
                self._count_on(passed)
        tick = math.floor(now * self._rate)
        if tick > self._tick:
            self._bytes[REGISTER_C] |= C_PF
        self._tick = tick
        return now

    def _count_on(self, seconds: int) -> None:
        mode = self._bytes[REGISTER_B]
        if seconds > 0:
            alarm = rtc.seconds_to_alarm(self._bytes, mode)
            reached = alarm is not None and alarm <= seconds
            self._bytes[REGISTER_C] |= C_UF | (C_AF if reached else 0)
        rtc.advance(self._bytes, seconds, mode)

    # --- interrupts
    # ------------------------------------------------------------------------------------------

    def _revive(self) -> None:
        """Go on from whatever the state is; an interrupt that is pending is raised again."""
        self._asserted = False
        if self._second is not None:
            self._signal(self._sync())

    def _signal(self, now: float) -> None:
        """Raise the interrupt when IRQF turns on; else let the timer wait for what turns it on."""
        asserted = bool(self._bytes[REGISTER_C] & self._bytes[REGISTER_B] & _INTERRUPTS)
        if asserted and not self._asserted and self._host is not None and self._host.trigger is not None:
            self._host.trigger.trigger()
        self._asserted = asserted
        self._cancel()
        if not asserted and self._loop is not None and (delay := self._next_event(now)) is not None:
            self._timer = self._loop.call_later(min(max(delay, 0.0), _LONGEST_SLEEP_S), self._on_timer)

    def _next_event(self, now: float) -> float | None:
        """Seconds from `now` until an enabled interrupt, None when none will come."""
        enabled = self._bytes[REGISTER_B]
        events = []
        if enabled & C_PF and self._rate:
            events.append((self._tick + 1) / self._rate)
        if not self._stopped and self._second is not None:
            if enabled & C_UF:
                events.append(self._second + 1)
            alarm = rtc.seconds_to_alarm(self._bytes, enabled) if enabled & C_AF else None
            if alarm is not None:
                events.append(self._second + alarm)
        return min(events) - now if events else None

    def _on_timer(self) -> None:
        self._timer = None
        self._signal(self._sync())

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
