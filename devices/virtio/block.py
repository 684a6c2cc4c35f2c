"""virtio-blk (virtio 1.2 section 5.2) over a raw image. Reads of what the host has in memory are done at
once, other requests in threads: the shard's loop never waits for a disk.

Order. Requests in flight at the same time have none, as the specification allows. A flush covers every
write that completed before the flush was submitted, because fdatasync does. A driver that did not negotiate
VIRTIO_BLK_F_FLUSH cannot ask, so its writes are on the disk before they complete.

A reset waits for the requests that run: afterwards no thread touches guest RAM.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import msgspec

from shardio.devices.options import in_range, memory_size
from shardio.devices.virtio import buffers
from shardio.devices.virtio.device import VirtioDevice
from shardio.devices.virtio.errors import QueueError
from shardio.devices.virtio.image import SECTOR, RawImage
from shardio.devices.virtio.queue import Chain
from shardio.devices.virtio.workers import Workers
from shardio.errors import DeviceOptionError
from shardio.rate import guest_log

if TYPE_CHECKING:
    from shardio.device import DeviceHost

log = logging.getLogger("shardio.devices.virtio")

F_SEG_MAX: Final = 1 << 2
F_RO: Final = 1 << 5
F_BLK_SIZE: Final = 1 << 6
F_FLUSH: Final = 1 << 9
F_MQ: Final = 1 << 12
F_DISCARD: Final = 1 << 13
F_WRITE_ZEROES: Final = 1 << 14

QUEUE_SIZE: Final = 256
SEGMENTS: Final = QUEUE_SIZE - 2  # a header and a status take one descriptor each
RANGE_SECTORS: Final = 1 << 22  # 2 GiB a range
RANGES: Final = 16
SERIAL_BYTES: Final = 20
_UNMAP: Final = 1

_HEADER: Final = struct.Struct("<IIQ")
_RANGE: Final = struct.Struct("<QII")
_CONFIG: Final = struct.Struct("<QII4xI8xBxHIIIIIB3x")


class RequestType(IntEnum):
    """virtio_blk_req.type."""

    IN = 0
    OUT = 1
    FLUSH = 4
    GET_ID = 8
    DISCARD = 11
    WRITE_ZEROES = 13


class RequestStatus(IntEnum):
    """The byte that ends each request."""

    OK = 0
    IOERR = 1
    UNSUPP = 2


class _Unsupported(Exception):
    """The request asks for what was not offered."""


class _Request(msgspec.Struct, frozen=True, gc=False):
    """A request whose header was copied out of guest RAM; `status` is the byte to answer in."""

    index: int
    chain: Chain
    kind: int
    sector: int
    data_out: Sequence[memoryview]
    data_in: Sequence[memoryview]
    status: memoryview


class Block(VirtioDevice):
    """A disk. Counts nothing, keeps nothing but the image and what is in flight."""

    device_id = 2

    def __init__(
        self, image: RawImage, *, queues: int = 1, threads: int = 4, serial: str = "shardio"
    ) -> None:
        """`queues`: 1 to 16 request queues. `threads`: requests that run at the same time, 1 to 64.
        `serial`: up to 20 ASCII characters that the guest sees. The image is closed by `detach`.

        Raises DeviceOptionError for values out of these.
        """
        if len(serial) > SERIAL_BYTES or not serial.isascii():
            hint = f"give at most {SERIAL_BYTES} ASCII characters"
            raise DeviceOptionError("virtio block", "serial", serial, hint)
        in_range(queues, 1, 16, device="virtio block", option="queues")
        in_range(threads, 1, 64, device="virtio block", option="threads")
        features = F_SEG_MAX | F_BLK_SIZE | F_FLUSH | (F_MQ if queues > 1 else 0)
        features |= F_RO if image.read_only else F_DISCARD | F_WRITE_ZEROES
        super().__init__(features)
        self.queue_sizes = (QUEUE_SIZE,) * queues
        self._image = image
        self._serial = serial.encode("ascii")
        self._workers = Workers(self._run, self._fetch, most=threads, name="virtio-blk")
        self._writable = not image.read_only

    def config(self) -> bytes:
        """struct virtio_blk_config."""
        ranges = RANGE_SECTORS, RANGES, 1
        sectors, queues = self._image.sectors, len(self.queue_sizes)
        return _CONFIG.pack(sectors, 0, SEGMENTS, SECTOR, 1, queues, *ranges, *ranges)

    def resize(self, size: int | str | None = None) -> int:
        """Give the image `size` ("64M", or bytes), or find out how many bytes it has now; the driver is told
        of another capacity. Returns the size in bytes.

        Raises ImageError or DeviceOptionError where it cannot have that size, and then nothing has changed.
        """
        if size is not None:
            size = memory_size(size, device="virtio block", option="size")
        before = self._image.size
        self._workers.wait()  # each has been found to lie in the image
        self._image.resize(size)
        if self._image.size != before:
            self.config_changed()
        return self._image.size

    def save(self) -> bytes:
        """The capacity that the driver was last told of."""
        return msgspec.msgpack.encode(self._image.size)

    def load(self, saved: bytes) -> bool:
        """Whether the image has changed meanwhile."""
        return msgspec.msgpack.decode(saved, type=int) != self._image.size

    def attach(self, host: DeviceHost) -> None:
        """Take the image for this device alone. Raises ImageError when another one has it."""
        super().attach(host)
        self._image.lock(f"device {host.name}")

    def stopped(self) -> None:
        """Wait for what runs; forget what was done but not given back."""
        self._workers.keep(lambda _: False)

    def stop_queue(self, index: int) -> None:
        """Wait for what runs; what was done for this queue is not given back."""
        super().stop_queue(index)
        self._workers.keep(lambda done: done[0].index != index)

    def pause(self) -> None:
        """Wait for what runs; what is done is given back after `resume`."""
        super().pause()
        self._workers.wait()

    def resume(self) -> None:
        """Give back what was done, and go on."""
        self.paused = False
        self._complete_done()
        super().resume()

    def detach(self) -> None:
        """Stop the threads and close the image."""
        self._workers.close()
        self._image.close()

    # -- in the loop ------------------------------------------------------------------------------------

    def serve(self, index: int, chain: Chain) -> int | None:
        """Read what the host has in memory; hand any other request to a thread. Raises QueueError for one
        without header or status byte.
        """
        request = self._parse(index, chain)
        if request.kind == RequestType.IN and (written := self._read_at_hand(request)):
            return written
        self._workers.submit(request)
        return None

    def _read_at_hand(self, request: _Request) -> int:
        """Bytes written; 0: not at hand."""
        offset, length = request.sector * SECTOR, request.chain.writable_bytes - 1
        if length % SECTOR or offset + length > self._image.size:
            return 0
        if not self._image.read_at_hand(offset, request.data_in):
            return 0
        request.status[0] = RequestStatus.OK
        return length + 1

    def _parse(self, index: int, chain: Chain) -> _Request:
        if chain.readable_bytes < _HEADER.size or not chain.writable_bytes:
            raise QueueError(
                "block request without header or status",
                readable=chain.readable_bytes,
                writable=chain.writable_bytes,
            )
        readable, writable = chain.readable, chain.writable
        if len(readable[0]) == _HEADER.size and len(writable[-1]) == 1:  # as drivers lay it out
            kind, _, sector = _HEADER.unpack(bytes(readable[0]))
            return _Request(index, chain, kind, sector, readable[1:], writable[:-1], writable[-1])
        kind, _, sector = _HEADER.unpack(buffers.copy(readable, 0, _HEADER.size))
        data_bytes = chain.writable_bytes - 1
        return _Request(
            index,
            chain,
            kind,
            sector,
            buffers.cut(readable, _HEADER.size, chain.readable_bytes),
            buffers.cut(writable, 0, data_bytes),
            buffers.cut(writable, data_bytes, 1)[0],
        )

    def _complete_done(self) -> None:
        """Give back what the threads finished, with one interrupt a queue for all of it."""
        if self.paused:
            return
        indices = set()
        for request, written in self._workers.results():
            self.give_back(request.index, request.chain, written)
            indices.add(request.index)
        for index in indices:
            self.tell_used(index)

    # -- in a thread ------------------------------------------------------------------------------------

    def _fetch(self) -> None:
        if self.host is not None:
            self.host.loop.call_soon_threadsafe(self._complete_done)

    def _run(self, request: _Request) -> tuple[_Request, int]:
        written = 0
        try:
            written = self._execute(request)
            status = RequestStatus.OK
        except _Unsupported:
            status = RequestStatus.UNSUPP
        except OSError as error:
            log.debug("virtio block %s: request type %d fails: %s", self._image.path, request.kind, error)
            status = RequestStatus.IOERR
        except Exception:  # a request that is never answered would hang the guest
            if guest_log.admits():
                log.exception("virtio block %s: request type %d", self._image.path, request.kind)
            status = RequestStatus.IOERR
        request.status[0] = status
        # Used length counts from the first writable byte: the status counts only when the data before it is
        # there.
        complete = written == buffers.total(request.data_in)
        return request, written + 1 if complete else written

    def _execute(self, request: _Request) -> int:
        """Do it. Returns how many bytes of `data_in` were filled; raises OSError or _Unsupported."""
        match request.kind:
            case RequestType.IN:
                length = buffers.total(request.data_in)
                self._image.read(self._locate(request.sector, length), request.data_in)
                return length
            case RequestType.OUT:
                offset = self._locate(request.sector, buffers.total(request.data_out))
                self._refuse_if_read_only()
                self._image.write(offset, request.data_out, stable=self._write_through)
            case RequestType.FLUSH:
                self._image.flush()
            case RequestType.GET_ID:
                return buffers.scatter(request.data_in, self._serial.ljust(SERIAL_BYTES, b"\0"))
            case RequestType.DISCARD | RequestType.WRITE_ZEROES:
                self._refuse_if_read_only()
                self._change_ranges(request)
            case _:
                raise _Unsupported
        return 0

    @property
    def _write_through(self) -> bool:
        return not self.negotiated & F_FLUSH

    def _refuse_if_read_only(self) -> None:
        if not self._writable:
            raise OSError("read-only")

    def _locate(self, sector: int, length: int) -> int:
        """The byte offset of a range that lies in the image whole."""
        offset = sector * SECTOR
        if length % SECTOR or offset + length > self._image.size:
            raise OSError(f"{length} bytes at sector {sector} are not in the image")
        return offset

    def _change_ranges(self, request: _Request) -> None:
        length = buffers.total(request.data_out)
        if not length or length % _RANGE.size or length > RANGES * _RANGE.size:
            raise OSError(f"{length} bytes are not 1 to {RANGES} ranges")
        ranges = []
        for sector, count, flags in _RANGE.iter_unpack(buffers.copy(request.data_out, 0, length)):
            if flags & ~_UNMAP or (flags and request.kind == RequestType.DISCARD):
                raise _Unsupported
            if count > RANGE_SECTORS:
                raise OSError(f"range of {count} sectors")
            ranges.append((self._locate(sector, count * SECTOR), count * SECTOR, bool(flags)))
        for offset, size, unmap in ranges:
            if not size:
                continue
            if request.kind == RequestType.DISCARD:
                self._image.discard(offset, size)
            else:
                self._image.write_zeroes(offset, size, unmap=unmap, stable=self._write_through)
