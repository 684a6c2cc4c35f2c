"""`Port92`: the PC's system control port A, with the A20 gate and the fast reset.

>>> port = Port92()
>>> port.read(0, 1)
2
"""

from __future__ import annotations

import msgspec

from shardio.device import DeviceHost, MutDevicePio

_RESET = 0x01
_A20 = 0x02


class Port92State(msgspec.Struct):
    """The port's byte."""

    value: int


class Port92(MutDevicePio):
    """Bit 0 going from 0 to 1 resets the machine; bit 1 is kept for whoever reads it, since KVM never masks
    A20.
    """

    pio_size = 1
    persistent, state_type = 64, Port92State
    reads_change = False

    def __init__(self) -> None:
        self._value = _A20
        self._host: DeviceHost | None = None

    def attach(self, host: DeviceHost) -> None:
        """Reset through `host.reset` from now on."""
        self._host = host

    def detach(self) -> None:
        """Reset nothing any more."""
        self._host = None

    def read(self, offset: int, size: int) -> int:
        """What was written last, without the reset bit."""
        return self._value

    def write(self, offset: int, size: int, value: int) -> None:
        """Keep `value`; reset when its bit 0 is set."""
        self._value = value & 0xFF & ~_RESET
        if value & _RESET and self._host is not None:
            self._host.reset()

    def snapshot(self) -> Port92State:
        """The port's byte."""
        return Port92State(self._value)

    def restore(self, state: Port92State) -> None:
        """Take the byte back."""
        self._value = state.value
