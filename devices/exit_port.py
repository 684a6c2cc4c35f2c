"""`ExitPort`: the guest ends the machine by a write, as with QEMU's isa-debug-exit (0xF4 by custom).

>>> port = ExitPort()
>>> port.write(0, 1, 0x10)
>>> port.status
33
"""

from __future__ import annotations

import msgspec

from shardio.device import DeviceHost, MutDevicePio


class ExitPortState(msgspec.Struct):
    """The status of the last write, None before the first."""

    status: int | None


class ExitPort(MutDevicePio):
    """A write of `value` stops the machine with status `(value << 1 | 1) & 0xFF`, so 0 is never a success by
    chance.

    `status` is that of the last write, None before the first. Reads give 0.
    """

    pio_size = 4
    persistent, state_type = 64, ExitPortState
    reads_change = False

    def __init__(self, raw: bool = False) -> None:
        """`raw`: the status is `value & 0xFF` itself."""
        self.raw = raw
        self.status: int | None = None
        self._host: DeviceHost | None = None

    def attach(self, host: DeviceHost) -> None:
        """Stop the machine through `host.exit` from now on."""
        self._host = host

    def detach(self) -> None:
        """Stop nothing any more."""
        self._host = None

    def read(self, offset: int, size: int) -> int:
        """0."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Stop the machine with the status that `value` gives."""
        self.status = (value if self.raw else value << 1 | 1) & 0xFF
        if self._host is not None:
            self._host.exit(self.status)

    def snapshot(self) -> ExitPortState:
        """The last status."""
        return ExitPortState(self.status)

    def restore(self, state: ExitPortState) -> None:
        """Take the status back; it stops nothing again."""
        self.status = state.status
