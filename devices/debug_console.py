"""`DebugConsole`: the port that firmware prints its log to, one byte a write (0x402 by custom).

>>> DebugConsole(output="null").read(0, 1) == 0xE9
True
"""

from __future__ import annotations

import asyncio

from shardio.device import DeviceHost, MutDevicePio
from shardio.devices.byte_output import ByteOutput

READBACK = 0xE9
LINE_BYTES = 1024
LINE_S = 0.05
"""How long an unfinished line is held back."""


class DebugConsole(MutDevicePio):
    """Writes go to `output`, low byte first; reads give 0xE9, by which SeaBIOS knows that somebody
    listens.

    Lines go out whole: where a serial console shares the terminal, firmware prints both byte by byte. In a
    shard an unfinished line follows after 50 ms.
    """

    pio_size = 1

    def __init__(self, output: str = "stderr") -> None:
        """`output`: "stdout", "stderr", "null", "file:PATH" (appended), "pty" or "fd:N".

        Raises DeviceOptionError for any other; `attach()` raises it when the file cannot be opened.
        """
        self.output = ByteOutput(output, device="DebugConsole")
        self._line = bytearray()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def attach(self, host: DeviceHost) -> None:
        """Open the output; what it cannot take at once is flushed by the shard's loop."""
        self.output.attach(host)
        self._loop = host.loop

    def detach(self) -> None:
        """Flush and close the output."""
        self._flush()
        self._loop = None
        self.output.close()

    def read(self, offset: int, size: int) -> int:
        """0xE9, at any width."""
        return READBACK

    def write(self, offset: int, size: int, value: int) -> None:
        """Print the `size` bytes of `value`."""
        self._line += (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        if self._loop is None or self._line[-1] == 0x0A or len(self._line) >= LINE_BYTES:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(LINE_S, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._line:
            self.output.write(bytes(self._line))
            self._line.clear()
