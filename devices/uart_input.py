"""`UartInput`: feeds a UART's receiver with what comes from the host, as far as the receiver has room.

What the receiver has no room for is not read, and stays with the host (in the pipe, the terminal or the
file); what was read and had to be given back (FCR clears the FIFO) is held in the chip's state and comes
again first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shardio.device import DeviceHost
from shardio.devices.byte_fd import Pty
from shardio.devices.byte_input import ByteInput
from shardio.devices.uart_core import UartCore
from shardio.devices.uart_state import FIFO_SIZE


class UartInput:
    """The way from a `ByteInput` into a `UartCore`. `received` counts bytes, `paused` tells whether the
    host's side is not read now.
    """

    def __init__(self, source: ByteInput, core: UartCore, changed: Callable[[], None]) -> None:
        """`changed`: called when `paused` or what is held changes."""
        self.received = 0
        self.paused = True
        self._source = source
        self._core = core
        self._changed = changed
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def pty(self) -> Pty | None:
        """The terminal that the input has opened."""
        return self._source.pty

    def attach(self, host: DeviceHost) -> None:
        """Open the input. Raises DeviceOptionError when that fails."""
        self._source.attach(host, self._pump)
        self._loop = host.loop

    def close(self) -> None:
        """Close the input; what was not read stays with the host."""
        self._source.close()
        self._loop = None

    def receive(self, data: bytes) -> None:
        """The host sends `data`: what the receiver has no room for now follows as the guest reads."""
        self._core.state.held += data
        self.refill()

    def refill(self) -> None:
        """Move what the host sent before into the receiver, as far as there is room."""
        state = self._core.state
        if state.held and (room := self._core.room) > 0:
            data, state.held = state.held[:room], state.held[room:]
            self._take(data)

    def pause(self) -> None:
        """Read no more for now."""
        if not self.paused:
            self._source.pause()
            self.paused = True
            self._changed()

    def resume(self) -> None:
        """Read again once half of the receiver is free; a call a byte would cost a system call each."""
        if not self.paused or self._loop is None:
            return
        room = self._core.room
        if room <= 0 or (self._core.fifos and room < FIFO_SIZE // 2):
            return
        self.paused = False
        self._changed()
        if self._core.state.held:
            self._loop.call_soon(self._on_held)
        else:
            self._source.resume()

    def _on_held(self) -> None:
        if self._loop is not None:
            self._pump()
            if not self.paused:
                self._source.resume()

    def _pump(self) -> None:
        """The input has something to read, or a cleared receiver waits for what it had before."""
        self.refill()
        room = 0 if self._core.state.held else self._core.room
        if room > 0:
            self._take(self._source.read(room))
        if self._core.state.held or self._core.room <= 0:
            self.pause()

    def _take(self, data: bytes) -> None:
        self.received += len(data)
        self._core.receive(data)
        self._changed()
