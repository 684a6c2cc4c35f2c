"""`CdRom`: an ATAPI CD-ROM drive with a disc in it, which is a raw (ISO 9660) image.

Source: ATA/ATAPI-6, clause 8.22 (PACKET) and 9.8 (its protocol); the packet commands are in `packet`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from shardio.devices.ide.drive import Drive, Phase, Wires
from shardio.devices.ide.identify import identify_packet
from shardio.devices.ide.packet import BLOCK, MEDIUM_ERROR, Refused, answer, extent
from shardio.devices.ide.registers import (
    ABRT,
    ERR,
    READY,
    REASON_COMMAND,
    REASON_TO_HOST,
    Command,
    Fault,
)
from shardio.devices.virtio import buffers
from shardio.devices.virtio.image import RawImage

_PACKET_BYTES: Final = 12
_LARGEST_BLOCK: Final = 0xFFFE
_DMA: Final = 0x01
_OVERLAPPED: Final = 0x02
_CHUNK: Final = 16
"""Blocks that are read from the image at once."""


class CdRom(Drive):
    """A CD-ROM drive. Its registers after a reset have the signature of a packet device (clause 9.12)."""

    signature = (0x14, 0xEB)
    status_after_reset = 0x00

    def __init__(self, image: RawImage, wires: Wires, *, serial: str = "shardio") -> None:
        """The image has whole blocks of 2048 bytes."""
        self._serial = serial
        self._blocks = image.size // BLOCK
        super().__init__(image, wires)

    def execute(self, command: int) -> None:
        """Clause 8: see `Drive.execute`."""
        match command:
            case Command.PACKET:
                self._await_packet()
            case Command.IDENTIFY_PACKET_DEVICE:
                self.give(identify_packet(self._serial, mode=self.s.transfer_mode))
            case Command.DEVICE_RESET:
                self.reset()
            case Command.IDENTIFY_DEVICE | Command.READ_SECTORS:
                self.put_signature()  # clauses 8.15.5.2 and 8.34.5.2: that is how a host tells it from a disk
                raise Fault(ABRT)
            case _:
                self.execute_common(command)

    # -- PACKET -----------------------------------------------------------------------------------------

    def _await_packet(self) -> None:
        s = self.s
        if s.feature & _OVERLAPPED:
            raise Fault(ABRT)
        s.packet, s.dma = True, bool(s.feature & _DMA)
        s.limit = (s.mid & 0xFF | (s.high & 0xFF) << 8) & _LARGEST_BLOCK or _LARGEST_BLOCK
        s.count = REASON_COMMAND
        self.take(_PACKET_BYTES, interrupt=False)

    def block_done(self, block: bytearray | memoryview) -> None:
        """The host has written a packet, or read a block."""
        if self.s.phase is Phase.OUT:
            self._obey(bytes(block))
        elif self.s.reply or self.s.left:
            self._refusable(self._give_next)
        elif self.s.packet:
            self._complete()
        else:
            self.s.status, self.s.phase = READY, Phase.NOTHING

    def _obey(self, packet: bytes) -> None:
        s = self.s

        def begin() -> None:
            found = extent(packet, self._blocks)
            if found is not None:
                s.lba, s.left = found
            else:
                s.reply = answer(packet, self._blocks, s.sense)
            s.sense = (0, 0, 0)
            if not (s.reply or s.left):
                self._complete()
            elif s.dma:
                s.count = REASON_TO_HOST
                self.await_dma()
            else:
                self._give_next()

        self._refusable(begin)

    def _refusable(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Refused as refused:
            self._refuse(refused)

    def _refuse(self, refused: Refused) -> None:
        s = self.s
        s.sense, s.left, s.reply = refused.sense, 0, b""
        s.count = REASON_COMMAND | REASON_TO_HOST
        s.error = s.sense[0] << 4 | ABRT
        self.succeed(READY | ERR)

    def _complete(self) -> None:
        self.s.count = REASON_COMMAND | REASON_TO_HOST
        self.succeed()

    def _give_next(self) -> None:
        """The next block of the reply, at most `limit` bytes; how many it is, the host finds in mid and
        high.
        """
        s = self.s
        while s.left and len(s.reply) < s.limit:
            s.reply += self._read(min(s.left, _CHUNK))
        block, s.reply = bytearray(s.reply[: s.limit]), s.reply[s.limit :]
        s.mid, s.high = len(block) & 0xFF, len(block) >> 8
        s.count = REASON_TO_HOST
        self.give(block)

    def _read(self, blocks: int) -> bytes:
        data = bytearray(blocks * BLOCK)
        try:
            self.image.read(self.s.lba * BLOCK, [memoryview(data)])
        except OSError:
            raise Refused(*MEDIUM_ERROR) from None
        self.s.lba += blocks
        self.s.left -= blocks
        return bytes(data)

    # -- DMA --------------------------------------------------------------------------------------------

    @property
    def dma_bytes(self) -> int:
        """See `Drive`."""
        return self.s.left * BLOCK or len(self.s.reply)

    def transfer(self, views: list[memoryview]) -> None:
        """See `Drive`."""
        if self.s.left:
            self.image.read(self.s.lba * BLOCK, views)
        else:
            buffers.scatter(views, self.s.reply)

    def transferred(self, failure: BaseException | None) -> None:
        """See `Drive`."""
        if failure is None:
            self.s.left, self.s.reply = 0, b""
            self._complete()
        else:
            self._refuse(Refused(*MEDIUM_ERROR))
