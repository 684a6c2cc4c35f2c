"""`DebugConsole`: the port that firmware prints its log to, one byte a write (0x402 by custom).

>>> DebugConsole(output="null").read(0, 1) == 0xE9
True
"""

from __future__ import annotations

from shardio.device import DeviceHost, MutDevicePio
from shardio.devices.byte_output import ByteOutput

READBACK = 0xE9


class DebugConsole(MutDevicePio):
    """Writes go to `output`, low byte first; reads give 0xE9, by which SeaBIOS knows that somebody
    listens.
    """

    pio_size = 1

    def __init__(self, output: str = "stderr") -> None:
        """`output`: "stdout", "stderr", "null", "file:PATH" (appended), "pty" or "fd:N".

        Raises DeviceOptionError for any other; `attach()` raises it when the file cannot be opened.
        """
        self.output = ByteOutput(output, device="DebugConsole")

    def attach(self, host: DeviceHost) -> None:
        """Open the output; what it cannot take at once is flushed by the shard's loop."""
        self.output.attach(host.loop)

    def detach(self) -> None:
        """Flush and close the output."""
        self.output.close()

    def read(self, offset: int, size: int) -> int:
        """0xE9, at any width."""
        return READBACK

    def write(self, offset: int, size: int, value: int) -> None:
        """Print the `size` bytes of `value`."""
        self.output.write((value & ((1 << 8 * size) - 1)).to_bytes(size, "little"))
