"""`Drive`: what a disk and a CD-ROM drive have in common: registers, phases, and the commands of both.

A drive is in one phase at a time. With data for the host (`IN`) or room for the host's (`OUT`) it has opened
one block at its channel's data port, and is told when the host has moved all of it. In `DMA` it waits for the
bus master; while it is `BUSY` a thread works for it. Source: ATA/ATAPI-6, clauses 8 and 9.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final, Protocol

import msgspec

from shardio.devices.ide.registers import (
    ABRT,
    BSY,
    DIAGNOSTIC_PASSED,
    DRQ,
    ERR,
    READY,
    SECOND,
    STATUS,
    Command,
    Fault,
)
from shardio.devices.virtio.image import RawImage

_NAMES: Final = ("", "feature", "count", "low", "mid", "high", "device")
_POWER: Final = frozenset({
    Command.STANDBY_IMMEDIATE, Command.IDLE_IMMEDIATE, Command.STANDBY, Command.IDLE, Command.SLEEP,
})  # fmt: skip
ACTIVE: Final = 0xFF
"""CHECK POWER MODE's answer: active or idle (clause 8.7)."""


class Phase(IntEnum):
    """What the drive waits for."""

    NOTHING = 0
    IN = 1
    OUT = 2
    DMA = 3
    BUSY = 4


class DriveState(msgspec.Struct):
    """Registers and the command in progress. A register of 16 bits holds what was written last and, above it,
    what was written before (clause 6.20). `lba`, `left`: the next sector, and how many are to come;
    `per_block`: sectors for one interrupt; `multiple`: what SET MULTIPLE MODE chose, 0 for none; `heads` and
    `track`: the geometry that the host chose; `packet`: the command is PACKET; `reply`: what is still to be
    sent of its answer, at most `limit` bytes at once; `dma`: by the bus master; `sense`: key, code and
    qualifier of its error; `command`: the last one.
    """

    feature: int = 0
    count: int = 0
    low: int = 0
    mid: int = 0
    high: int = 0
    device: int = 0
    error: int = 0
    status: int = 0
    pending: bool = False
    phase: Phase = Phase.NOTHING
    writes: bool = False
    lba: int = 0
    left: int = 0
    per_block: int = 1
    multiple: int = 0
    heads: int = 16
    track: int = 63
    write_cache: bool = True
    transfer_mode: int = 0
    reply: bytes = b""
    limit: int = 0
    packet: bool = False
    dma: bool = False
    sense: tuple[int, int, int] = (0, 0, 0)
    command: int = 0


class Wires(Protocol):
    """What a drive asks of the channel that it is on."""

    def open_block(self, block: bytearray, *, out: bool) -> None:
        """The host may move `block` through the data port; `drive.block_done` is called after its end."""

    def interrupt_changed(self) -> None:
        """The drive's `pending` has changed."""

    def try_dma(self) -> None:
        """The drive waits for the bus master: call its `transfer` once that has been started."""

    def run(self, work: Callable[[], None], then: Callable[[BaseException | None], None]) -> None:
        """Do `work` without holding up the shard, then call `then` with what it raised."""


class Drive:
    """A drive on a raw image. Subclasses have `signature`, `status_after_reset` and `execute`."""

    signature = (0x00, 0x00)
    status_after_reset = READY

    def __init__(self, image: RawImage, wires: Wires) -> None:
        """The image is closed by `detach`."""
        self.image = image
        self.wires = wires
        self.s = DriveState()
        self.reset()

    # -- registers --------------------------------------------------------------------------------------

    def write(self, register: int, value: int) -> None:
        """The host writes a register other than data and command; it is kept with the value before it."""
        name = _NAMES[register]
        before = getattr(self.s, name)
        setattr(self.s, name, value if name == "device" else before << 8 & 0xFF00 | value)

    def read(self, register: int, previous: bool) -> int:
        """The host reads a register other than data; `previous`: what was written before (HOB)."""
        s = self.s
        if register == STATUS:
            return s.status
        name = "error" if register == 1 else _NAMES[register]
        value: int = getattr(s, name)
        return value >> 8 & 0xFF if previous else value & 0xFF

    @property
    def is_busy(self) -> bool:
        """Whether registers must not be written (clause 7.1): BSY or DRQ is set."""
        return bool(self.s.status & (BSY | DRQ))

    def reset(self) -> None:
        """Power-on, hardware or software reset: registers have the signature (clause 9.12)."""
        s = self.s
        s.phase, s.pending, s.left, s.reply = Phase.NOTHING, False, 0, b""
        s.multiple = 0
        self.put_signature()
        s.error, s.status = DIAGNOSTIC_PASSED, self.status_after_reset

    def put_signature(self) -> None:
        """Tell what this is (clause 9.12, table 38). The device bit (DEV) is the channel's to keep."""
        s = self.s
        s.count, s.low, (s.mid, s.high) = 1, 1, self.signature
        s.device &= SECOND

    # -- the end of a command, or of a block ------------------------------------------------------------

    def begin(self, command: int) -> None:
        """The host wrote a command. Whatever it is, the host gets an answer."""
        s = self.s
        s.error, s.pending, s.left, s.reply, s.packet = 0, False, 0, b"", False
        s.command = command
        self.wires.interrupt_changed()
        self.guarded(lambda: self.execute(command))

    def execute(self, command: int) -> None:
        """Carry `command` out or begin it. Raises Fault for one that is unknown, and for a malformed one."""
        raise Fault(ABRT)

    def guarded(self, step: Callable[[], None]) -> None:
        """Do a step of a command; a Fault ends it."""
        try:
            step()
        except Fault as fault:
            self.fail(fault.error)

    def fail(self, error: int) -> None:
        """The command has failed (clause 9.4: ERR, and an interrupt)."""
        self.s.error = error
        self.succeed(READY | ERR)

    def succeed(self, status: int = READY) -> None:
        """The command is over; the host is interrupted."""
        self.s.status, self.s.phase = status, Phase.NOTHING
        self.interrupt()

    def interrupt(self) -> None:
        """INTRQ rises (clause 9.1)."""
        self.s.pending = True
        self.wires.interrupt_changed()

    def give(self, block: bytearray) -> None:
        """A block for the host, with an interrupt (clause 9.5, PIO data-in)."""
        self.s.phase, self.s.status = Phase.IN, READY | DRQ
        self.wires.open_block(block, out=False)
        self.interrupt()

    def take(self, size: int, *, interrupt: bool) -> None:
        """Room for `size` bytes of the host's; the first block of a command has no interrupt (clause 9.6)."""
        self.s.phase, self.s.status = Phase.OUT, READY | DRQ
        self.wires.open_block(bytearray(size), out=True)
        if interrupt:
            self.interrupt()

    def block_done(self, block: bytearray | memoryview) -> None:
        """The host has moved all of the block."""
        raise NotImplementedError

    def await_dma(self) -> None:
        """The data goes by the bus master, once the host has started it (clause 9.7)."""
        self.s.phase, self.s.status = Phase.DMA, READY | DRQ
        self.wires.try_dma()

    def work(self, work: Callable[[], None], error: int) -> None:
        """Have `work` done in a thread, and end the command; `error` is what an OSError ends it with."""
        self.s.phase, self.s.status = Phase.BUSY, BSY
        self.wires.run(work, lambda failure: self.fail(error) if failure else self.succeed())

    def resume(self) -> None:
        """Begin anew what a thread of a predecessor had in hand: the host has seen nothing of it."""
        if self.s.phase is not Phase.BUSY:
            return
        if self.s.status & DRQ:
            self.s.phase = Phase.DMA
        else:
            self.guarded(lambda: self.execute(self.s.command))

    @property
    def dma_bytes(self) -> int:
        """How many bytes the command in hand moves by DMA."""
        raise NotImplementedError

    def transfer(self, views: list[memoryview]) -> None:
        """Move the data of the command in hand from or to guest RAM; in a thread. Raises OSError."""
        raise NotImplementedError

    def transferred(self, failure: BaseException | None) -> None:
        """The transfer is over."""
        raise NotImplementedError

    # -- commands of both kinds -------------------------------------------------------------------------

    def execute_common(self, command: int) -> None:
        """The commands that every drive knows. Raises Fault for any other."""
        match command:
            case Command.EXECUTE_DEVICE_DIAGNOSTIC:
                self.reset()
                self.interrupt()
            case Command.CHECK_POWER_MODE:
                self.s.count = ACTIVE
                self.succeed()
            case Command.FLUSH_CACHE | Command.FLUSH_CACHE_EXT:
                self.work(self.image.flush, ABRT)
            case Command.SET_FEATURES:
                self._set_features()
                self.succeed()
            case _ if command in _POWER:
                self.succeed()
            case _:
                raise Fault(ABRT)

    def _set_features(self) -> None:
        """SET FEATURES (clause 8.46): the transfer mode is kept to be told, since every mode is as fast."""
        s = self.s
        match s.feature & 0xFF:
            case 0x03:
                kind, number = s.count >> 3 & 0x1F, s.count & 0x07
                if kind not in (0x00, 0x01, 0x04, 0x08) or (kind == 0x04 and number > 2) or number > 5:
                    raise Fault(ABRT)
                s.transfer_mode = s.count & 0xFF
            case 0x02 | 0x82 as subcommand:
                s.write_cache = subcommand == 0x02
            case 0x55 | 0xAA | 0x66 | 0xCC:  # look-ahead, and what a software reset does: nothing to change
                pass
            case _:
                raise Fault(ABRT)
