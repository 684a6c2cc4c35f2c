"""`DebugConsole`: the port that firmware prints its log to, one byte a write (0x402 by custom).

>>> DebugConsole(output="null").read(0, 1) == 0xE9
True
"""

from __future__ import annotations

import asyncio
from typing import Any

from shardio.device import DeviceHost, MutDevicePio
from shardio.devices.byte_output import ByteOutput
from shardio.devices.output_ring import OutputRing
from shardio.fast_registers import FastRegisters, keep_in, let_go
from shardio.mark import Mark, Repeat

READBACK = 0xE9
LINE_BYTES = 1024
QUIET_S = 0.05
"""An unfinished line is held back until this long nothing has followed,"""
MOST_LOOKS = 20
"""or it was looked at so often."""
RING_BYTES = 1 << 16
_NEWLINE = 0x0A
_NOWHERE = -1


class DebugConsole(FastRegisters, MutDevicePio):
    """Writes go to `output`, low byte first; reads give 0xE9, by which SeaBIOS knows that somebody
    listens.

    Lines go out whole: where a serial console shares the terminal, firmware prints both byte by byte. In a
    shard an unfinished line follows when nothing has come for 50 ms, or after a second, and what comes in
    between gathers in memory that outlives the shard.
    """

    pio_size = 1
    persistent_area = RING_BYTES + Mark.BYTES
    guards_itself = True

    def __init__(self, output: str = "stderr") -> None:
        """`output`: "stdout", "stderr", "null", "file:PATH" (appended), "pty" or "fd:N".

        Raises DeviceOptionError for any other; `attach()` raises it when the file cannot be opened.
        """
        self.output = ByteOutput(output, device="DebugConsole")
        self._line = bytearray()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._came = self._seen = self._looks = 0
        """Bytes that came without such memory; all that had come when the timer was set; how often this line
        was looked at.
        """
        self.status_at, self.status, self.limit, self.slow_byte = 0, READBACK, RING_BYTES - 1, _NEWLINE
        self._store: Any = None
        self._ring: OutputRing | None = None
        self._mark: Mark | None = None
        self._repeat = Repeat(None)
        self._lines = 0
        """What has come into the ring up to the end of its last whole line."""

    def attach(self, host: DeviceHost) -> None:
        """Open the output; what it cannot take at once is flushed by the shard's loop, and what a
        predecessor had not written is written.
        """
        if (store := getattr(host, "persistent", None)) is not None:
            self._keep_in(store)
        self.output.attach(host)
        self._loop = host.loop
        if self._ring is not None and self._ring.pending:
            self._loop.call_soon(self._flush)

    def detach(self) -> None:
        """Flush and close the output."""
        self._flush()
        self._loop = None
        self.output.close()
        self._let_go()

    def read_slowly(self, offset: int, size: int) -> int:
        """0xE9, at any width."""
        return READBACK

    def write_slowly(self, offset: int, size: int, value: int) -> None:
        """Print the `size` bytes of `value`."""
        data = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        if self._ring is not None:
            self._put(self._ring, data)
            return
        self._came += size
        self._line += data
        if self._loop is None or self._line[-1] == _NEWLINE or len(self._line) >= LINE_BYTES:
            self._flush()
        elif self._timer is None:
            self._look_later(self._loop)

    # -- in memory that outlives the shard --------------------------------------------------------------

    def _keep_in(self, store: Any) -> None:
        mark = store.area[RING_BYTES:]
        self._mark = Mark(mark)
        name, tail = self._mark.get()
        self._store, self._ring, self._lines = store, OutputRing(store, 0, RING_BYTES, tail), tail
        self._repeat = Repeat(name if tail else None)
        self.head, self.tail = self._ring.head, tail
        keep_in(self, self._ring.memory, mark, store.control_at)
        self.output.keep_in(self._ring)

    def _let_go(self) -> None:
        if self._ring is not None:
            let_go(self)
            self._ring.close()
        self._ring = self._mark = self._store = None

    def _put(self, ring: OutputRing, data: bytes) -> None:
        """The bytes leave after the access, from when on they count."""
        assert self._mark is not None
        assert self._loop is not None
        name = self._store.journal()
        if self._repeat.is_it(name):
            return
        ring.tail, self.head = self.tail, ring.head
        self.output.dropped += len(data) - ring.put(data)
        self.tail = ring.tail
        self._mark.set(name, self.tail)
        if data[-1] == _NEWLINE:
            self._lines = self.tail
            self._loop.call_soon(self._flush_lines)
        elif self._timer is None:
            self._look_later(self._loop)

    def _flush_lines(self) -> None:
        if self._ring is not None and self._lines > self._ring.head:
            if self._lines == self.tail:
                self._forget_timer()
            self._send(self._ring, self._lines)

    def _send(self, ring: OutputRing, upto: int) -> None:
        ring.tail = self.tail
        self.output.send(upto)
        self.head = ring.head

    # -- unfinished lines -------------------------------------------------------------------------------

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._seen = self._came + self.tail
        if self._ring is not None and not self._repeat:
            self.data_at = 0
        self._timer = loop.call_later(QUIET_S, self._look)

    def _look(self) -> None:
        """The line is still unfinished: is it being written?"""
        assert self._loop is not None
        self._looks += 1
        if self._came + self.tail != self._seen and self._looks < MOST_LOOKS:
            self._look_later(self._loop)
        else:
            self._flush()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._looks, self.data_at = None, 0, _NOWHERE

    def _flush(self) -> None:
        self._forget_timer()
        if self._ring is not None:
            self._send(self._ring, self.tail)
            return
        if self._line:
            self.output.write(bytes(self._line))
            self._line.clear()
