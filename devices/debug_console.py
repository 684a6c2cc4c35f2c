"""`DebugConsole`: the port that firmware prints its log to, one byte a write (0x402 by custom).

>>> DebugConsole(output="null").read(0, 1) == 0xE9
True
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shardio.device import DeviceHost, MutDevicePio
from shardio.devices.byte_output import ByteOutput
from shardio.devices.output_ring import OutputRing

if TYPE_CHECKING:
    from shardio.device import HostPersistent

READBACK = 0xE9
LINE_BYTES = 1024
QUIET_S = 0.05
"""An unfinished line is held back until this long nothing has followed,"""
MOST_LOOKS = 20
"""or it was looked at so often."""
RING_BYTES = 1 << 16


class DebugConsole(MutDevicePio):
    """Writes go to `output`, low byte first; reads give 0xE9, by which SeaBIOS knows that somebody
    listens.

    Lines go out whole: where a serial console shares the terminal, firmware prints both byte by byte. In a
    shard an unfinished line follows when nothing has come for 50 ms, or after a second.
    """

    pio_size = 1
    persistent, persistent_area = 8, RING_BYTES

    def __init__(self, output: str = "stderr") -> None:
        """`output`: "stdout", "stderr", "null", "file:PATH" (appended), "pty" or "fd:N".

        Raises DeviceOptionError for any other; `attach()` raises it when the file cannot be opened.
        """
        self.output = ByteOutput(output, device="DebugConsole")
        self._line = bytearray()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._came = self._seen = self._looks = 0
        """Bytes that came, of which when the timer was set; how often this line was looked at."""
        self._store: HostPersistent | None = None
        self._ring: OutputRing | None = None
        self._lines = 0
        """What has come into the ring up to the end of its last whole line."""

    def attach(self, host: DeviceHost) -> None:
        """Open the output; what it cannot take at once is flushed by the shard's loop, and what a
        predecessor had not written is written.
        """
        if (store := getattr(host, "persistent", None)) is not None:
            tail = int.from_bytes(store.state or b"", "little")
            self._store, self._ring, self._lines = store, OutputRing(store, 0, RING_BYTES, tail), tail
            self.output.keep_in(self._ring)
        self.output.attach(host)
        self._loop = host.loop
        if self._ring is not None and self._ring.pending:
            self._loop.call_soon(self._flush)

    def detach(self) -> None:
        """Flush and close the output."""
        self._flush()
        self._loop = None
        self.output.close()
        if self._ring is not None:
            self._ring.close()
        self._ring = self._store = None

    def read(self, offset: int, size: int) -> int:
        """0xE9, at any width."""
        return READBACK

    def write(self, offset: int, size: int, value: int) -> None:
        """Print the `size` bytes of `value`."""
        data = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        self._came += size
        if self._ring is not None:
            self._put(self._ring, data)
            return
        self._line += data
        if self._loop is None or self._line[-1] == 0x0A or len(self._line) >= LINE_BYTES:
            self._flush()
        elif self._timer is None:
            self._look_later(self._loop)

    def _put(self, ring: OutputRing, data: bytes) -> None:
        """The bytes leave after the access, from when on they count."""
        assert self._store is not None
        assert self._loop is not None
        self.output.dropped += len(data) - ring.put(data)
        self._store.save(ring.tail.to_bytes(8, "little"))
        if data[-1] == 0x0A:
            self._lines = ring.tail
            self._loop.call_soon(self._flush_lines)
        elif self._timer is None:
            self._look_later(self._loop)

    def _flush_lines(self) -> None:
        if self._ring is not None and self._lines > self._ring.head:
            if self._lines == self._ring.tail:
                self._forget_timer()
            self.output.send(self._lines)

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._seen = self._came
        self._timer = loop.call_later(QUIET_S, self._look)

    def _look(self) -> None:
        """The line is still unfinished: is it being written?"""
        assert self._loop is not None
        self._looks += 1
        if self._came != self._seen and self._looks < MOST_LOOKS:
            self._look_later(self._loop)
        else:
            self._flush()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._looks = None, 0

    def _flush(self) -> None:
        self._forget_timer()
        if self._ring is not None:
            self.output.send(self._ring.tail)
            return
        if self._line:
            self.output.write(bytes(self._line))
            self._line.clear()
