"""`Disk`: an ATA disk: sectors by PIO and by DMA, with 28-bit, 48-bit and cylinder addresses.

What is written is in the host's page cache when a command ends, and on the disk itself after FLUSH CACHE, or
at once while the host has the write cache off. An address past the end is IDNF, and nothing is moved. Source:
ATA/ATAPI-6, clause 8.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from shardio.devices.ide.drive import Drive, Phase, Wires
from shardio.devices.ide.identify import identify_disk
from shardio.devices.ide.registers import ABRT, IDNF, UNC, USE_LBA, Command, Fault
from shardio.devices.virtio.image import SECTOR, RawImage

_MOST_MULTIPLE: Final = 16


class _Move(NamedTuple):
    """How a command moves sectors: `wide` is with 48-bit addresses, `multiple` in blocks of several."""

    writes: bool
    wide: bool = False
    multiple: bool = False
    dma: bool = False


_MOVES: Final = {
    Command.READ_SECTORS: _Move(False),
    Command.READ_SECTORS_ONCE: _Move(False),
    Command.READ_SECTORS_EXT: _Move(False, wide=True),
    Command.READ_MULTIPLE: _Move(False, multiple=True),
    Command.READ_MULTIPLE_EXT: _Move(False, wide=True, multiple=True),
    Command.READ_DMA: _Move(False, dma=True),
    Command.READ_DMA_ONCE: _Move(False, dma=True),
    Command.READ_DMA_EXT: _Move(False, wide=True, dma=True),
    Command.WRITE_SECTORS: _Move(True),
    Command.WRITE_SECTORS_ONCE: _Move(True),
    Command.WRITE_SECTORS_EXT: _Move(True, wide=True),
    Command.WRITE_MULTIPLE: _Move(True, multiple=True),
    Command.WRITE_MULTIPLE_EXT: _Move(True, wide=True, multiple=True),
    Command.WRITE_DMA: _Move(True, dma=True),
    Command.WRITE_DMA_ONCE: _Move(True, dma=True),
    Command.WRITE_DMA_EXT: _Move(True, wide=True, dma=True),
}
_VERIFIES: Final = {
    Command.READ_VERIFY: False,
    Command.READ_VERIFY_ONCE: False,
    Command.READ_VERIFY_EXT: True,
}


class Disk(Drive):
    """A fixed disk on a raw image."""

    def __init__(self, image: RawImage, wires: Wires, *, serial: str = "shardio") -> None:
        """`serial`: what IDENTIFY DEVICE tells, cut to 20 characters."""
        self._serial = serial
        super().__init__(image, wires)

    def execute(self, command: int) -> None:
        """Clause 8: see `Drive.execute`."""
        s = self.s
        if (move := _MOVES.get(command)) is not None:  # type: ignore[call-overload]
            self._move(move)
        elif command in _VERIFIES:
            self._verify(*self._addressed(wide=_VERIFIES[Command(command)]))
        elif command == Command.IDENTIFY_DEVICE:
            self.give(
                identify_disk(
                    self.image.sectors, self._serial, heads=s.heads, track=s.track, multiple=s.multiple,
                    mode=s.transfer_mode, write_cache=s.write_cache,
                )
            )  # fmt: skip
        elif command == Command.IDENTIFY_PACKET_DEVICE or command == Command.PACKET:
            raise Fault(ABRT)
        elif command == Command.SET_MULTIPLE_MODE:
            self._set_multiple(s.count & 0xFF)
        elif command == Command.INITIALIZE_DEVICE_PARAMETERS:
            self._set_geometry(s.device & 0x0F, s.count & 0xFF)
        elif command & 0xF0 in (Command.RECALIBRATE, Command.SEEK):
            self.succeed()
        else:
            self.execute_common(command)

    # -- sectors ----------------------------------------------------------------------------------------

    def _move(self, move: _Move) -> None:
        s = self.s
        lba, count = self._addressed(wide=move.wide)
        if (move.multiple and not s.multiple) or (move.writes and self.image.read_only):
            raise Fault(ABRT)
        s.lba, s.left, s.writes, s.dma = lba, count, move.writes, move.dma
        s.per_block = s.multiple if move.multiple else 1
        if move.dma:
            self.await_dma()
        elif move.writes:
            self.take(self._block_bytes, interrupt=False)
        else:
            self._give_next()

    def _addressed(self, *, wide: bool) -> tuple[int, int]:
        """The first sector and the number of sectors that the registers name. Raises Fault past the end."""
        s = self.s
        if wide and not s.device & USE_LBA:
            raise Fault(ABRT)
        if wide:
            low, mid, high = s.low, s.mid, s.high
            lba = low & 0xFF | (mid & 0xFF) << 8 | (high & 0xFF) << 16
            lba |= (low >> 8) << 24 | (mid >> 8) << 32 | (high >> 8) << 40
            count = s.count or 0x10000
        else:
            lba, count = self._short_address(), s.count & 0xFF or 0x100
        if lba + count > self.image.sectors:
            raise Fault(IDNF)
        return lba, count

    def _short_address(self) -> int:
        s = self.s
        low, mid, high, top = s.low & 0xFF, s.mid & 0xFF, s.high & 0xFF, s.device & 0x0F
        if s.device & USE_LBA:
            return low | mid << 8 | high << 16 | top << 24
        if not 1 <= low <= s.track or top >= s.heads:
            raise Fault(IDNF)
        return ((mid | high << 8) * s.heads + top) * s.track + low - 1

    @property
    def _block_bytes(self) -> int:
        return min(self.s.left, self.s.per_block) * SECTOR

    def _give_next(self) -> None:
        block = bytearray(self._block_bytes)
        try:
            self.image.read(self.s.lba * SECTOR, [memoryview(block)])
        except OSError:
            raise Fault(UNC) from None
        self._advance(len(block) // SECTOR)
        self.give(block)

    def _advance(self, sectors: int) -> None:
        self.s.lba += sectors
        self.s.left -= sectors

    def block_done(self, block: bytearray | memoryview) -> None:
        """The host has read a block, or written one."""
        self.guarded(lambda: self._write_block(block) if self.s.phase is Phase.OUT else self._read_on())

    def _read_on(self) -> None:
        if not self.s.left:
            self.s.status, self.s.phase = self.status_after_reset, Phase.NOTHING
        else:
            self._give_next()

    def _write_block(self, block: bytearray | memoryview) -> None:
        s = self.s
        try:
            self.image.write(s.lba * SECTOR, [memoryview(block)], stable=not s.write_cache)
        except OSError:
            raise Fault(ABRT) from None
        self._advance(len(block) // SECTOR)
        if s.left:
            self.take(self._block_bytes, interrupt=True)
        else:
            self.succeed()

    def _verify(self, lba: int, count: int) -> None:
        def read() -> None:
            scratch = bytearray(min(count, 256) * SECTOR)
            for first in range(lba, lba + count, 256):
                part = memoryview(scratch)[: min(256, lba + count - first) * SECTOR]
                self.image.read(first * SECTOR, [part])

        self.work(read, UNC)

    # -- DMA --------------------------------------------------------------------------------------------

    @property
    def dma_bytes(self) -> int:
        """See `Drive`."""
        return self.s.left * SECTOR

    def transfer(self, views: list[memoryview]) -> None:
        """See `Drive`."""
        s = self.s
        if s.writes:
            self.image.write(s.lba * SECTOR, views, stable=not s.write_cache)
        else:
            self.image.read(s.lba * SECTOR, views)

    def transferred(self, failure: BaseException | None) -> None:
        """See `Drive`."""
        if failure is None:
            self._advance(self.s.left)
            self.succeed()
        else:
            self.fail(ABRT if self.s.writes else UNC)

    # -- settings ---------------------------------------------------------------------------------------

    def _set_multiple(self, sectors: int) -> None:
        """SET MULTIPLE MODE (clause 8.49): a power of two up to what IDENTIFY DEVICE names, or none."""
        if sectors > _MOST_MULTIPLE or sectors & (sectors - 1):
            self.s.multiple = 0
            raise Fault(ABRT)
        self.s.multiple = sectors
        self.succeed()

    def _set_geometry(self, last_head: int, track: int) -> None:
        """INITIALIZE DEVICE PARAMETERS (ATA-5 clause 8.16)."""
        if not track:
            raise Fault(ABRT)
        self.s.heads, self.s.track = last_head + 1, track
        self.succeed()
