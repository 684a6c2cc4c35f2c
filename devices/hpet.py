"""`Hpet`: a high precision event timer at 0xFED0_0000, a 64-bit counter of 100 MHz and three comparators.

Each comparator expires once or periodically. Its interrupt goes to a line of the I/O APIC that the guest
chooses among `lines`; with legacy replacement the first two take the place of the PIT (line 0) and the RTC
(line 8) instead, whose own interrupts the guest must then switch off. The loop has a timer only while an
interrupt is to come; a host that is late sends one for all that it missed. There are no message interrupts
(FSB delivery).

Source: IA-PC HPET specification 1.0a (October 2004), section 2.3.

>>> hpet = Hpet()
>>> hex(hpet.read(CAPABILITIES, 4)), hpet.read(CAPABILITIES + 4, 4)
('0x8086a201', 10000000)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from shardio.device import DeviceHost, HostPersistent, MutDeviceMmio
from shardio.devices import hpet_timer
from shardio.devices.hpet_lines import HpetLines
from shardio.devices.hpet_timer import Timer
from shardio.errors import DeviceOptionError
from shardio.range import MmioRange

BASE = 0xFED0_0000
SIZE = 0x400
CAPABILITIES = 0x000
CONFIG = 0x010
STATUS = 0x020
COUNTER = 0x0F0
TIMERS = 0x100
STRIDE = 0x20
COMPARATOR = 0x08

COUNT = 3
PERIOD_FS = 10_000_000
TICK_NS = PERIOD_FS // 1_000_000
IDENTITY = 0x8086 << 16 | 1 << 15 | 1 << 13 | COUNT - 1 << 8 | 1
"""Vendor, legacy replacement, 64 bits, number of the last timer, revision (section 2.3.4)."""
CONFIG_ENABLE, CONFIG_LEGACY = 1, 2
LEGACY_LINES = (0, 8)
IO_APIC_LINES = 24

SHORTEST_NS = 200_000
"""Interrupts of a comparator come no closer together, however short a period the guest chooses."""


class HpetState(msgspec.Struct, array_like=True):
    """`counter`: the main counter when it was last halted or started; `began_ns`: the host's time then, by
    its monotonic clock, None while it is halted. `config`, `status`: the general registers.
    """

    config: int = 0
    status: int = 0
    counter: int = 0
    began_ns: int | None = None
    timers: list[Timer] = msgspec.field(default_factory=lambda: [Timer() for _ in range(COUNT)])


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(HpetState).decode


class Hpet(MutDeviceMmio):
    """An HPET of three comparators.

    `clock` gives the time in nanoseconds; a test puts its own there before the first access.
    """

    ranges = (MmioRange(BASE, SIZE),)
    policy = "replay"
    persistent = 512
    compatible = "intel,hpet"

    def __init__(self, lines: list[int] | None = None) -> None:
        """`lines`: the lines (GSIs, 0 to 23) among which the guest chooses; default 20 to 23.

        Raises DeviceOptionError for others, or none.
        """
        self.clock: Callable[[], int] = time.monotonic_ns
        self._routes = _routes([20, 21, 22, 23] if lines is None else lines)
        self._state = HpetState()
        self._host: DeviceHost | None = None
        self._store: HostPersistent | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._lines: HpetLines | None = None

    def attach(self, host: DeviceHost) -> None:
        """Interrupt through `host.interrupts`, by timers of `host.loop`, from now on."""
        self._host, self._store, self._lines = host, host.persistent, HpetLines(host)
        if self._store is not None and self._store.state is not None:
            self._state = _decode(self._store.state)
        self._signal()

    def detach(self) -> None:
        """Cancel the timer; the host takes the interrupts back, and the time goes on."""
        self._cancel()
        self._host = self._store = self._lines = None

    def snapshot(self) -> HpetState:
        """A copy of the state. Its time is that of this host's monotonic clock."""
        return _decode(_encode(self._state))

    def restore(self, state: HpetState) -> None:
        """Take over `state`; the time has gone on since it was taken."""
        self._state = _decode(_encode(state))
        self._signal()

    # --- the guest
    # -------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """`size` bytes of a register; 0 where there is none."""
        register, at = offset & ~7, offset & 7
        if register not in (CAPABILITIES, COUNTER):
            self._signal()  # what has expired shows in the status and in a periodic comparator
            self._save()
        return self._load(register) >> 8 * at & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """32 or 64 bits of a register, aligned (section 2.3.1); other accesses are dropped."""
        if size not in (4, 8) or offset % size:
            return
        now, at = self._count_on(), offset & 7
        self._store_register(offset - at, value << 8 * at, now, low=at == 0, high=at + size == 8)
        self._signal()
        self._save()

    def _load(self, register: int) -> int:
        state = self._state
        if register == CAPABILITIES:
            return PERIOD_FS << 32 | IDENTITY
        if register == CONFIG:
            return state.config
        if register == STATUS:
            return state.status
        if register == COUNTER:
            return self._counter()
        timer, kind = self._timer_at(register)
        if timer is None:
            return 0
        if kind == COMPARATOR:
            return timer.comparator
        return self._routes << 32 | timer.config if kind == 0 else 0

    def _store_register(self, register: int, value: int, now: int, *, low: bool, high: bool) -> None:
        """`now`: the counter, up to which all that has expired has been told."""
        state = self._state
        if register == COUNTER:
            if state.began_ns is None:  # section 2.3.7: software writes it only while it is halted
                mask = (hpet_timer.LOW if low else 0) | (hpet_timer.ALL ^ hpet_timer.LOW if high else 0)
                state.counter = state.counter & ~mask | value & mask
                self._restart()
            return
        timer, kind = self._timer_at(register)
        if timer is not None and kind == COMPARATOR:
            hpet_timer.write_comparator(timer, value, now, low=low, high=high)
        elif not low:
            return  # what is there is read-only, or reserved
        elif register == CONFIG:
            self._configure(value)
        elif register == STATUS:
            state.status &= ~value
        elif timer is not None and kind == 0:
            hpet_timer.write_config(timer, value & hpet_timer.LOW, self._routes)
            timer.seen = now  # of another width, it may have been met before

    def _timer_at(self, register: int) -> tuple[Timer | None, int]:
        number, kind = divmod(register - TIMERS, STRIDE)
        return (self._state.timers[number], kind) if 0 <= number < COUNT else (None, 0)

    def _configure(self, value: int) -> None:
        """Halt the counter, or let it go on from where it was."""
        state = self._state
        enabled = bool(value & CONFIG_ENABLE)
        if enabled and state.began_ns is None:
            state.began_ns = self.clock()
            self._restart()
        elif not enabled and state.began_ns is not None:
            state.counter, state.began_ns = self._counter(), None
        state.config = value & (CONFIG_ENABLE | CONFIG_LEGACY)

    def _restart(self) -> None:
        for timer in self._state.timers:
            hpet_timer.start(timer, self._state.counter)

    # --- time
    # -------------------------------------------------------------------------------------------

    def _counter(self) -> int:
        state = self._state
        if state.began_ns is None:
            return state.counter
        return state.counter + (self.clock() - state.began_ns) // TICK_NS & hpet_timer.ALL

    def _count_on(self) -> int:
        """Tell of what has expired by now; the counter."""
        now = self._counter()
        if self._state.began_ns is None:
            return now
        for number, timer in enumerate(self._state.timers):
            if hpet_timer.expire(timer, now):
                self._expired(number, timer)
        return now

    def _signal(self) -> None:
        """Tell of what has expired, let lines be what they should, and a timer wait for what comes next."""
        self._cancel()
        now = self._count_on()
        self._drive_levels()
        if self._host is None or self._state.began_ns is None:
            return
        due = [match for timer in self._state.timers if (match := self._next_of(timer)) is not None]
        if due:
            wait_ns = max((min(due) - now) * TICK_NS, 0)
            self._timer = self._host.loop.call_later(wait_ns / 1e9, self._tick)

    def _next_of(self, timer: Timer) -> int | None:
        """When the loop must look at it; None where nobody would notice."""
        if not timer.config & hpet_timer.ENABLE:
            return None
        match = hpet_timer.next_match(timer)
        if match is None or not (timer.config & hpet_timer.PERIODIC and timer.period):
            return match
        return max(match, timer.seen + SHORTEST_NS // TICK_NS)

    def _tick(self) -> None:
        self._signal()
        self._save()

    def _save(self) -> None:
        if self._store is not None:
            self._store.save(_encode(self._state))

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- interrupts
    # -------------------------------------------------------------------------------------------

    def _expired(self, number: int, timer: Timer) -> None:
        """Section 2.3.6: the status bit is that of a level interrupt; an edge has none."""
        line = self._line(number, timer)
        if timer.config & hpet_timer.LEVEL:
            self._state.status |= 1 << number
        elif timer.config & hpet_timer.ENABLE and self._lines is not None and line is not None:
            self._lines.pulse(line)

    def _line(self, number: int, timer: Timer) -> int | None:
        """Where its interrupt goes; None where the guest has chosen no line yet."""
        if self._state.config & CONFIG_LEGACY and number < len(LEGACY_LINES):
            return LEGACY_LINES[number]
        return timer.route if self._routes >> timer.route & 1 else None

    def _drive_levels(self) -> None:
        """A level line is high while a timer on it has its status bit set, and may interrupt."""
        if self._lines is None:
            return
        asserted = [
            self._line(number, timer)
            for number, timer in enumerate(self._state.timers)
            if self._state.status >> number & 1 and timer.config & hpet_timer.ENABLE
        ]
        self._lines.drive({line for line in asserted if line is not None})


def _routes(lines: object) -> int:
    """Bit n for line n. Raises DeviceOptionError for what is no list of lines."""
    chosen = lines if isinstance(lines, list) else []
    if not chosen or not all(type(line) is int and 0 <= line < IO_APIC_LINES for line in chosen):
        raise DeviceOptionError("Hpet", "lines", lines, f"give a list of some of 0 to {IO_APIC_LINES - 1}")
    return sum(1 << line for line in set(chosen))
