"""virtio-console (virtio 1.2 section 5.3), one port: queue 0 carries input, queue 1 output.

Nothing is lost and nothing grows without bound: input is read only when the driver has a buffer for it, and
output is taken from the driver only as fast as the host's side takes it, a bounded piece a turn of the
loop.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from shardio.devices.byte_input import ByteInput
from shardio.devices.byte_output import ByteOutput
from shardio.devices.options import in_range
from shardio.devices.virtio import buffers
from shardio.devices.virtio.device import VirtioDevice
from shardio.devices.virtio.queue import Chain

if TYPE_CHECKING:
    from shardio.device import DeviceHost

F_SIZE: Final = 1 << 0
F_EMERG_WRITE: Final = 1 << 2

RECEIVE: Final = 0
TRANSMIT: Final = 1

PIECE: Final = 4096
PIECES_A_TURN: Final = 64
_EMERGENCY_OFFSET: Final = 8


class Console(VirtioDevice):
    """A terminal."""

    device_id = 3
    queue_sizes = (64, 64)

    def __init__(self, source: ByteInput, output: ByteOutput, *, columns: int = 80, rows: int = 25) -> None:
        """`source`, `output`: the host's side, opened in `attach`, closed in `detach`. Raises
        DeviceOptionError for a size that is none.
        """
        super().__init__(F_SIZE | F_EMERG_WRITE)
        self._source = source
        self._output = output
        self._size = _size(columns, rows)
        self._spare: Chain | None = None
        self._sending: Chain | None = None
        self._pieces: Iterator[memoryview] = iter(())
        self._scheduled = False

    def config(self) -> bytes:
        """struct virtio_console_config: columns, rows, ports, emergency write."""
        return struct.pack("<HHII", *self._size, 1, 0)

    def resize(self, columns: int, rows: int) -> None:
        """The terminal has another size now, in characters; the driver is told if it wants to know
        (section 5.3.4). Raises DeviceOptionError for what is none.
        """
        before, self._size = self._size, _size(columns, rows)
        if self._size != before and self.negotiated & F_SIZE:
            self.config_changed()

    @property
    def on_terminal(self) -> bool:
        """Whether the host's side is the terminal of whoever runs the machine."""
        return self._source.spec == "stdin" or self._output.spec == "stdout"

    def save(self) -> bytes:
        """The terminal's size."""
        return msgspec.msgpack.encode(self._size)

    def load(self, saved: bytes) -> bool:
        """Take the size over."""
        self._size = _size(*msgspec.msgpack.decode(saved, type=tuple[int, int]))
        return False

    def write_config(self, offset: int, data: bytes) -> None:
        """An emergency write puts one character out, before the device is set up too (section 5.3.4)."""
        if offset == _EMERGENCY_OFFSET:
            self._output.write(data[:1])

    def attach(self, host: DeviceHost) -> None:
        """Open the host's side. Raises DeviceOptionError when that fails."""
        super().attach(host)
        self._source.attach(host, self._receive)
        self._output.attach(host, self._source.pty)
        self._output.on_room = self._send

    def started(self) -> None:
        """Queues are live: input may be there already."""
        self._receive()

    def stopped(self) -> None:
        """Input stays with the host; output that was not taken yet goes with the driver's buffers."""
        self._source.pause()
        self._spare = self._sending = None
        self._pieces = iter(())

    def stop_queue(self, index: int) -> None:
        """Forget the buffer of that queue that waits for input, or for room in the output."""
        super().stop_queue(index)
        if index == RECEIVE:
            self._source.pause()
            self._spare = None
        else:
            self._sending = None
            self._pieces = iter(())

    def pause(self) -> None:
        """Input stays with the host, output with the driver."""
        super().pause()
        self._source.pause()

    def detach(self) -> None:
        """Close the host's side."""
        self._source.close()
        self._output.close()

    def notify(self, index: int) -> None:
        """The driver gave buffers for input, or output to take."""
        if index == RECEIVE:
            self._receive()
        else:
            self._send()

    # -- input ------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        if self.paused:
            return
        filled = False
        for _ in range(PIECES_A_TURN):
            chain = self._spare or self.take_or_ask(RECEIVE)
            self._spare = None
            if chain is None:
                self._source.pause()
                break
            data = self._source.read(min(PIECE, chain.writable_bytes)) if chain.writable_bytes else b""
            if not data and chain.writable_bytes:
                self._spare = chain
                self._source.resume()
                break
            self.give_back(RECEIVE, chain, buffers.scatter(chain.writable, data))
            filled = True
        else:
            self._source.resume()
        if filled:
            self.tell_used(RECEIVE)

    # -- output -----------------------------------------------------------------------------------------

    def _send(self) -> None:
        """Take output until there is none, the host's side is full, or this turn's share is used up."""
        self._scheduled = False
        if self.paused:
            return
        sent = False
        for _ in range(PIECES_A_TURN):
            if self._output.full:
                break  # `on_room` calls again
            if self._sending is None:
                self._sending = self.take_or_ask(TRANSMIT)
                if self._sending is None:
                    break
                self._pieces = buffers.pieces(self._sending.readable, PIECE)
            piece = next(self._pieces, None)
            if piece is not None:
                self._output.write(bytes(piece))
                continue
            self.give_back(TRANSMIT, self._sending, 0)
            self._sending = None
            sent = True
        else:
            self._schedule()
        if sent:
            self.tell_used(TRANSMIT)

    def _schedule(self) -> None:
        if self.host is not None and not self._scheduled:
            self._scheduled = True
            self.host.loop.call_soon(self._send)


def _size(columns: int, rows: int) -> tuple[int, int]:
    in_range(columns, 1, 0xFFFF, device="virtio console", option="columns")
    in_range(rows, 1, 0xFFFF, device="virtio console", option="rows")
    return columns, rows
