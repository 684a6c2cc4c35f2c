"""`Pit`: the PC's 8254 interval timer at ports 0x40 to 0x43, and port 0x61, which gates its third channel.

Channel 0 interrupts, channel 2 is the speaker's, and of channel 1 port 0x61 shows the refresh. The loop has
a timer only while channel 0's output will rise by itself. Each is set for a tick that is counted from the
channel's beginning, so that it does not drift; a host that is late sends one interrupt for
all that it missed.

Source: Intel 8254 data sheet (order number 231164-005); port 0x61 is that of Intel's 82371AB (PIIX4), "NMI
status and control register".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from shardio.address import PioAddress
from shardio.device import DeviceHost, HostPersistent, MutDevicePio
from shardio.devices import pit_channel
from shardio.devices.pit_channel import Channel
from shardio.range import PioRange

BASE = 0x40
PORT_B = 0x61
CONTROL = 3
FREQUENCY_HZ = 1_193_182

PORT_B_GATE = 0x01
PORT_B_WRITABLE = 0x0F
PORT_B_REFRESH = 0x10
PORT_B_OUTPUT = 0x20

SHORTEST_NS = 200_000
"""Interrupts come no closer together, however short a period the guest chooses."""

_REFRESH_TICKS = 18  # a refresh every 15 us
_READ_BACK = 3


class PitState(msgspec.Struct, array_like=True):
    """The three channels, and what was written to port 0x61."""

    channels: list[Channel] = msgspec.field(
        default_factory=lambda: [Channel(), Channel(), Channel(gate=False)]
    )
    port_b: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(PitState).decode


class Pit(MutDevicePio):
    """An 8254. `host.trigger` is its interrupt, line 0 on a PC.

    `clock` gives the time in nanoseconds; a test puts its own there before the first access.
    """

    ranges = (PioRange(BASE, 4), PioRange(PORT_B, 1))
    policy = "replay"
    persistent = 512

    def __init__(self) -> None:
        self.clock: Callable[[], int] = time.monotonic_ns
        self._state = PitState()
        self._host: DeviceHost | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._store: HostPersistent | None = None

    def attach(self, host: DeviceHost) -> None:
        """Interrupt through `host.trigger`, by timers of `host.loop`, from now on."""
        self._host, self._store = host, host.persistent
        if self._store is not None and self._store.state is not None:
            self._state = _decode(self._store.state)
        self._signal()

    def detach(self) -> None:
        """Cancel the timer; the time goes on."""
        self._cancel()
        self._host = self._store = None

    def snapshot(self) -> PitState:
        """A copy of the state. Its times are those of this host's monotonic clock."""
        return _copy(self._state)

    def restore(self, state: PitState) -> None:
        """Take over `state`; the time has gone on since it was taken."""
        self._state = _copy(state)
        self._signal()

    # --- the guest
    # -------------------------------------------------------------------------------------------

    def pio_read(self, base: PioAddress, offset: int, data: memoryview) -> None:
        """A channel's count or status, port 0x61; the control port reads 0. Each byte is a port's."""
        now = self._now()
        for i in range(len(data)):
            if base == PORT_B:
                data[i] = self._read_port_b(now)
            else:
                at = offset + i
                data[i] = 0 if at == CONTROL else pit_channel.read(self._state.channels[at], now)
        if base != PORT_B:
            self._save()  # reads take low and high bytes in turn

    def pio_write(self, base: PioAddress, offset: int, data: memoryview) -> None:
        """A byte of a channel's count, a control word, port 0x61."""
        now = self._now()
        for i, value in enumerate(data):
            if base == PORT_B:
                self._state.port_b = value & PORT_B_WRITABLE
                pit_channel.set_gate(self._state.channels[2], bool(value & PORT_B_GATE), now)
            elif offset + i == CONTROL:
                self._control(value, now)
            else:
                pit_channel.write_count(self._state.channels[offset + i], value, now)
        self._signal()
        self._save()

    def _control(self, value: int, now: int) -> None:
        chosen = value >> 6
        if chosen == _READ_BACK:
            for number, channel in enumerate(self._state.channels):
                if value >> number & 2:
                    if not value & 0x20:
                        pit_channel.latch_count(channel, now)
                    if not value & 0x10:
                        pit_channel.latch_status(channel, now)
        elif value & 0x30:
            pit_channel.write_control(self._state.channels[chosen], value)
        else:
            pit_channel.latch_count(self._state.channels[chosen], now)

    def _read_port_b(self, now: int) -> int:
        refresh = PORT_B_REFRESH if now // _REFRESH_TICKS & 1 else 0
        output = PORT_B_OUTPUT if pit_channel.output(self._state.channels[2], now) else 0
        return self._state.port_b | refresh | output

    # --- time
    # -------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return self.clock() * FREQUENCY_HZ // 1_000_000_000

    def _signal(self) -> None:
        """Interrupt where channel 0's output has risen since the last time; let a timer wait for the next
        rise.
        """
        self._cancel()
        host = self._host
        if host is None or host.trigger is None:
            return
        now = self._now()
        channel = self._state.channels[0]
        rise = pit_channel.last_rise(channel, now)
        if rise > channel.signalled:
            channel.signalled = rise
            host.trigger.trigger()
            self._save()
        if (due := pit_channel.next_event(channel, now)) is not None:
            # Rounded up: a timer that comes before its tick finds nothing.
            due_ns = -(-due * 1_000_000_000 // FREQUENCY_HZ)
            wait_ns = max(due_ns - self.clock(), SHORTEST_NS if due - rise < _SHORTEST_TICKS else 0)
            self._timer = host.loop.call_later(wait_ns / 1e9, self._signal)

    def _save(self) -> None:
        if self._store is not None:
            self._store.save(_encode(self._state))

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_SHORTEST_TICKS = SHORTEST_NS * FREQUENCY_HZ // 1_000_000_000


def _copy(state: PitState) -> PitState:
    return PitState([msgspec.structs.replace(channel) for channel in state.channels], state.port_b)
