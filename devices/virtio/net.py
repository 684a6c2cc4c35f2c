"""virtio-net (virtio 1.2 section 5.1), one queue pair without offloads: queue 0 receives, queue 1
transmits.

The driver's frames carry a 12-byte header that asks for nothing, as nothing is offered. Frames are sent
straight from guest RAM; when the link cannot take one, its chain waits and the driver feels the
back-pressure. Received frames stay in the link while the driver has no buffer; one too long for its buffer
is dropped.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

from shardio.devices.options import in_range
from shardio.devices.virtio import buffers
from shardio.devices.virtio.device import VirtioDevice
from shardio.devices.virtio.errors import VirtioError
from shardio.devices.virtio.link import FRAME_LIMIT, Link
from shardio.devices.virtio.queue import Chain

if TYPE_CHECKING:
    import asyncio

F_MTU: Final = 1 << 3
F_MAC: Final = 1 << 5
F_STATUS: Final = 1 << 16

RECEIVE: Final = 0
TRANSMIT: Final = 1

HEADER_SIZE: Final = 12
# flags, GSO type, four 16-bit lengths and offsets: all zero; num_buffers is 1 without VIRTIO_NET_F_MRG_RXBUF.
_RECEIVE_HEADER: Final = struct.pack("<10xH", 1)
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
    queue_sizes = (256, 256)

    def __init__(self, link: Link, mac: str = "52:54:00:12:34:56", *, mtu: int = 1500) -> None:
        """`link`: the host's side, closed by `detach`. `mtu`: bytes, 68 to 65535.

        Raises VirtioError for a bad address, DeviceOptionError for a bad MTU.
        """
        super().__init__(F_MAC | F_STATUS | F_MTU)
        in_range(mtu, 68, 65535, device="virtio net", option="mtu")
        self._link = link
        self._config = struct.pack("<6sHHH", parse_mac(mac), _LINK_UP, 1, mtu)
        self._spare: Chain | None = None
        self._sending: Chain | None = None
        self._reading = False
        self._timer: asyncio.TimerHandle | None = None
        self._retry_after = RETRY_FIRST
        self.dropped = 0
        """Frames that did not arrive: malformed, too long for their buffer, or refused by the link."""

    def config(self) -> bytes:
        """struct virtio_net_config: MAC, status, queue pairs, MTU."""
        return self._config

    def started(self) -> None:
        """Watch the link."""
        self._watch_reads(True)

    def stopped(self) -> None:
        """Frames on their way in stay in the link."""
        self._stand_still()
        self._spare = self._sending = None

    def stop_queue(self, index: int) -> None:
        """Forget the buffer of that queue that waits for a frame, or for the link."""
        super().stop_queue(index)
        if index == RECEIVE:
            self._watch_reads(False)
            self._spare = None
        else:
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
        """The driver gave buffers for frames, or frames to send."""
        if self.paused:
            return
        if index == RECEIVE:
            self._watch_reads(True)
        elif self._timer is None:
            self._send()

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
            chain = self._spare or self.take_or_ask(RECEIVE)
            self._spare = None
            if chain is None:
                self._watch_reads(False)
                break
            frame = self._link.receive()
            if frame is None:
                self._spare = chain
                if self._link.closed:
                    self._watch_reads(False)
                break
            if HEADER_SIZE + len(frame) > chain.writable_bytes:
                self.dropped += 1
                self._spare = chain
                continue
            self.give_back(RECEIVE, chain, buffers.scatter(chain.writable, _RECEIVE_HEADER + frame))
            filled = True
        if filled:
            self.tell_used(RECEIVE)

    # -- the loop ---------------------------------------------------------------------------------------

    def _watch_reads(self, wanted: bool) -> None:
        if self.host is not None and wanted != self._reading and not (wanted and self._link.closed):
            if wanted:
                self.host.loop.add_reader(self._link.fileno(), self._receive)
            else:
                self.host.loop.remove_reader(self._link.fileno())
            self._reading = wanted
