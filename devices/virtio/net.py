"""virtio-net (virtio 1.2 section 5.1), one queue pair without offloads: queue 0 receives, queue 1
transmits, queue 2 takes commands (`net_control`).

The driver's frames carry a 12-byte header that asks for nothing, as nothing is offered. Frames are sent
straight from guest RAM; when the link cannot take one, its chain waits and the driver feels the
back-pressure. Received frames stay in the link while the driver has no buffer. A frame that is longer than
its buffer goes into several where the driver merges them (VIRTIO_NET_F_MRG_RXBUF, section 5.1.6.4), and waits
for those; else it is dropped.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

import msgspec

from shardio.devices.options import in_range
from shardio.devices.virtio import buffers, net_control
from shardio.devices.virtio.device import VirtioDevice
from shardio.devices.virtio.errors import QueueError, VirtioError
from shardio.devices.virtio.link import FRAME_LIMIT, Link
from shardio.devices.virtio.net_control import COMMAND_LIMIT, FilterState, ReceiveFilter
from shardio.devices.virtio.queue import Chain

if TYPE_CHECKING:
    import asyncio

F_MTU: Final = 1 << 3
F_MAC: Final = 1 << 5
F_MRG_RXBUF: Final = 1 << 15
F_STATUS: Final = 1 << 16

RECEIVE: Final = 0
TRANSMIT: Final = 1
CONTROL: Final = 2

HEADER_SIZE: Final = 12
# flags, GSO type, four 16-bit lengths and offsets: all zero; then num_buffers.
_RECEIVE_HEADER: Final = struct.Struct("<10xH")
_ACK: Final = {True: b"\0", False: b"\1"}
_LINK_UP: Final = 1
FRAMES_A_TURN: Final = 64
_MAC: Final = re.compile(r"[0-9a-f]{2}(?:(:[0-9a-f]{2}){5}|(-[0-9a-f]{2}){5})", re.IGNORECASE | re.ASCII)
RETRY_FIRST: Final = 0.0001
RETRY_LIMIT: Final = 0.01
"""Seconds until a frame that the link could not take is tried again, doubling from the first to the limit."""


def parse_mac(text: str) -> bytes:
    """The bytes of a unicast address: six groups of two hexadecimal digits, between them ":" or "-".

    Raises VirtioError for any other text.

    >>> parse_mac("52:54:00:12:34:56").hex()
    '525400123456'
    """
    mac = bytes.fromhex(re.sub("[:-]", "", text)) if _MAC.fullmatch(text) else b"\1"
    if mac[0] & 1:
        raise VirtioError(f"{text!r} is no unicast MAC address", 'write it as "52:54:00:12:34:56"')
    return mac


class Net(VirtioDevice):
    """A network interface."""

    device_id = 1
    queue_sizes = (256, 256, 64)

    def __init__(self, link: Link, mac: str = "52:54:00:12:34:56", *, mtu: int = 1500) -> None:
        """`link`: the host's side, closed by `detach`. `mtu`: bytes, 68 to 65535.

        Raises VirtioError for a bad address, DeviceOptionError for a bad MTU.
        """
        super().__init__(F_MAC | F_STATUS | F_MTU | F_MRG_RXBUF | net_control.FEATURES)
        in_range(mtu, 68, 65535, device="virtio net", option="mtu")
        self._link = link
        self._mtu = mtu
        self._filter = ReceiveFilter(parse_mac(mac))
        self._spares: list[Chain] = []
        self._frame: bytes | None = None
        """One that waits for more buffers than there are."""
        self._sending: Chain | None = None
        self._reading = False
        self._timer: asyncio.TimerHandle | None = None
        self._retry_after = RETRY_FIRST
        self.dropped = 0
        """Frames that did not arrive: malformed, too long for their buffer, or refused by the link."""
        self.unwanted = 0
        """Frames that came for others, by what the driver asked for."""

    def config(self) -> bytes:
        """struct virtio_net_config: MAC, status, queue pairs, MTU."""
        return struct.pack("<6sHHH", self._filter.state.mac, _LINK_UP, 1, self._mtu)

    def save(self) -> bytes:
        """What the driver has commanded."""
        return msgspec.msgpack.encode(self._filter.state)

    def load(self, saved: bytes) -> bool:
        """Take that over."""
        self._filter.state = msgspec.msgpack.decode(saved, type=FilterState)
        return False

    def started(self) -> None:
        """Watch the link."""
        self._watch_reads(True)

    def stopped(self) -> None:
        """Frames on their way in stay in the link."""
        self._stand_still()
        self._spares, self._sending = [], None
        self._filter.reset()

    def stop_queue(self, index: int) -> None:
        """Forget the buffer of that queue that waits for a frame, or for the link."""
        super().stop_queue(index)
        if index == RECEIVE:
            self._watch_reads(False)
            self._spares = []
        elif index == TRANSMIT:
            self._cancel_timer()
            self._sending = None

    def pause(self) -> None:
        """Frames wait: those on their way in stay in the link."""
        super().pause()
        self._stand_still()

    def _stand_still(self) -> None:
        self._watch_reads(False)
        self._cancel_timer()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def detach(self) -> None:
        """Close the link."""
        self._link.close()

    def notify(self, index: int) -> None:
        """The driver gave buffers for frames, frames to send, or commands."""
        if self.paused:
            return
        if index == RECEIVE:
            self._watch_reads(True)
            if self._frame is not None:
                self._receive()
        elif index == CONTROL:
            self.drain(CONTROL)
        elif self._timer is None:
            self._send()

    def serve(self, index: int, chain: Chain) -> int:
        """A command of the driver's. Raises QueueError for one without header or status byte."""
        length, room = chain.readable_bytes, chain.writable_bytes
        if length < 2 or not room:
            raise QueueError("command without header or status", readable=length, writable=room)
        done = False
        if length <= COMMAND_LIMIT:
            kind, number, *_ = command = buffers.copy(chain.readable, 0, length)
            done = self._filter.command(kind, number, command[2:], self.negotiated)
        return buffers.scatter(chain.writable, _ACK[done])

    # -- out --------------------------------------------------------------------------------------------

    def _send(self) -> None:
        self._timer = None
        sent = False
        for _ in range(FRAMES_A_TURN):
            chain = self._sending or self.take_or_ask(TRANSMIT)
            self._sending = None
            if chain is None:
                break
            if not self._send_frame(chain):
                self._sending = chain
                self._retry_after = min(2 * self._retry_after, RETRY_LIMIT)
                self._send_later(self._retry_after)
                break
            self._retry_after = RETRY_FIRST
            self.give_back(TRANSMIT, chain, 0)
            sent = True
        else:
            self._send_later(0)
        if sent:
            self.tell_used(TRANSMIT)

    def _send_later(self, delay: float) -> None:
        # A timer, as a datagram socket cannot be watched for room at the far end.
        if self.host is not None:
            self._timer = self.host.loop.call_later(delay, self._send)

    def _send_frame(self, chain: Chain) -> bool:
        length = chain.readable_bytes - HEADER_SIZE
        if not 0 < length <= FRAME_LIMIT or len(chain.readable) > 1000:
            self.dropped += 1
            return True
        try:
            return self._link.send(buffers.cut(chain.readable, HEADER_SIZE, length))
        except OSError:  # nobody at the far end, the interface deleted: a cable would lose it too
            self.dropped += 1
            return True

    # -- in ---------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        filled = False
        for _ in range(FRAMES_A_TURN):
            if not self._spares and not self._take_spare():
                self._watch_reads(False)
                break
            frame = self._frame = self._frame or self._link.receive()
            if frame is None:
                if self._link.closed:
                    self._watch_reads(False)
                break
            if not self._filter.accepts(frame):
                self.unwanted += 1
            elif self._have_room(HEADER_SIZE + len(frame)):
                self._fill(frame)
                filled = True
            elif self._more_may_come():
                self._watch_reads(False)
                break
            else:
                self.dropped += 1
            self._frame = None
        if filled:
            self.tell_used(RECEIVE)

    def _take_spare(self) -> bool:
        chain = self.take_or_ask(RECEIVE)
        if chain is not None:
            self._spares.append(chain)
        return chain is not None

    def _have_room(self, length: int) -> bool:
        """Take as many buffers as `length` bytes need, or as there are."""
        room = sum(chain.writable_bytes for chain in self._spares)
        while room < length and self._merges and self._take_spare():
            room += self._spares[-1].writable_bytes
        return room >= length

    @property
    def _merges(self) -> bool:
        return bool(self.negotiated & F_MRG_RXBUF)

    def _more_may_come(self) -> bool:
        """Whether the driver can offer more buffers than those that are taken already."""
        queue = self.queues[RECEIVE] if self.queues else None
        return self._merges and queue is not None and len(self._spares) < queue.size

    def _fill(self, frame: bytes) -> None:
        """Fill the buffers that were taken, as few as hold the frame, and give them back together."""
        left, count = HEADER_SIZE + len(frame), 0
        while left > 0:
            left -= self._spares[count].writable_bytes
            count += 1
        used, self._spares = self._spares[:count], self._spares[count:]
        data = memoryview(_RECEIVE_HEADER.pack(count) + frame)
        done = []
        for chain in used:
            written = buffers.scatter(chain.writable, data)
            data = data[written:]
            done.append((chain, written))
        self.give_back_together(RECEIVE, done)

    # -- the loop ---------------------------------------------------------------------------------------

    def _watch_reads(self, wanted: bool) -> None:
        if self.host is not None and wanted != self._reading and not (wanted and self._link.closed):
            if wanted:
                self.host.loop.add_reader(self._link.fileno(), self._receive)
            else:
                self.host.loop.remove_reader(self._link.fileno())
            self._reading = wanted
