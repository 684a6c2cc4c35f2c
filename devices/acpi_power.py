"""`AcpiPower`: the registers by which a kernel that reads ACPI tables powers the machine off or resets it,
and the power management timer.

`Machine.load_tables("acpi")` tells of them where this device is there. Power-off ends the machine with
status 0. Source: ACPI 6.5, section 4.8.3.7 (sleep control and status), 4.8.3.6 (reset register) and 4.8.3.3
(timer: 32 bits at 3.579545 MHz).

>>> power = AcpiPower()
>>> power.read(TIMER, 4) <= power.read(TIMER, 4)
True
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgspec

from shardio.device import DeviceHost, HostPersistent, MutDevicePio

SLEEP_CONTROL, SLEEP_STATUS, RESET, TIMER = 0, 1, 2, 4
FREQUENCY: Final = 3_579_545
"""Ticks of the timer a second."""
SOFT_OFF: Final = 5
"""The type of sleep that the tables give for S5."""
RESET_VALUE: Final = 1

_SLEEP_ENABLE: Final = 0x20
_SLEEP_TYPE_SHIFT: Final = 2
_SLEEP_TYPE: Final = 0x07
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, float | None, int]).decode


class AcpiPowerState(msgspec.Struct):
    """The type of sleep that was written last, and what the timer showed."""

    sleep: int
    ticks: int


class AcpiPower(MutDevicePio):
    """Eight ports: sleep control, sleep status, reset, one that is unused, and the timer (32 bits)."""

    compatible = "acpi,power"
    pio_size = 8
    persistent = 64
    reads_change = False

    def __init__(self) -> None:
        self.clock: Callable[[], float] = time.monotonic
        self._began: float | None = None
        self._ticks_before = 0
        self._sleep = 0
        self._host: DeviceHost | None = None
        self._store: HostPersistent | None = None

    def attach(self, host: DeviceHost) -> None:
        """Power off and reset through `host` from now on. The timer goes on where a predecessor's is."""
        self._host, self._store = host, getattr(host, "persistent", None)
        if self._store is not None and self._store.state is not None:
            self._sleep, self._began, self._ticks_before = _decode(self._store.state)

    def detach(self) -> None:
        """Neither any more."""
        self._host = self._store = None

    def _keep(self) -> None:
        if self._store is not None:
            self._store.save(_encode((self._sleep, self._began, self._ticks_before)))

    def read(self, offset: int, size: int) -> int:
        """The timer, from any of its bytes on; the type of sleep; 0 for the status, which is for waking."""
        if offset >= TIMER:
            return self._ticks() >> 8 * (offset - TIMER)
        return self._sleep if offset == SLEEP_CONTROL else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Sleep or reset; the timer cannot be written, and there is no sleep but S5."""
        if offset == SLEEP_CONTROL:
            self._sleep = value & _SLEEP_TYPE << _SLEEP_TYPE_SHIFT
            self._keep()
            if value & _SLEEP_ENABLE and self._sleep >> _SLEEP_TYPE_SHIFT == SOFT_OFF and self._host:
                self._host.exit(0)
        elif offset == RESET and value & 0xFF == RESET_VALUE and self._host:
            self._host.reset()

    def _ticks(self) -> int:
        """The timer begins to count when it is first looked at."""
        now = self.clock()
        if self._began is None:
            self._began = now
            self._keep()
        return self._ticks_before + int((now - self._began) * FREQUENCY) & 0xFFFF_FFFF

    def snapshot(self) -> AcpiPowerState:
        """What `restore` takes."""
        return AcpiPowerState(self._sleep, self._ticks())

    def restore(self, state: AcpiPowerState) -> None:
        """The timer goes on where it was."""
        self._sleep = state.sleep
        self._began, self._ticks_before = None, state.ticks
        self._keep()
