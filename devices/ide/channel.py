"""`Channel`: an IDE channel with up to two drives: the ports of its task file, and its interrupt line.

Both drives hear what is written to registers; the selected one answers. The data port is in `data_port`. What
waits for the host's disk longer than a cached sector (DMA, a flush, a verification) runs in a thread while
the drive is busy (`worker`).

Source: ATA/ATAPI-6, clause 7.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from shardio.devices.ide.bus_master import BusMaster, BusMasterState
from shardio.devices.ide.data_port import DataPort
from shardio.devices.ide.drive import Drive, DriveState, Phase
from shardio.devices.ide.registers import (
    ABRT,
    BSY,
    COMMAND,
    DATA,
    DEVICE,
    HOB,
    NIEN,
    SECOND,
    SRST,
    STATUS,
    Command,
)
from shardio.devices.ide.worker import Worker
from shardio.errors import MemoryAccessError

if TYPE_CHECKING:
    from shardio.device import HostMemory


class ChannelState(msgspec.Struct):
    """`selected`: 0 or 1; `block`: what the data port moves for that drive, `at` the next byte of it, `out`:
    from the host; `drives`: each one's registers, None where there is none. Where the block is in memory that
    outlives the shard, `serial` and `length` say which (-1: there is none).
    """

    control: int
    selected: int
    line: bool
    block: bytes | None
    at: int
    out: bool
    drives: list[DriveState | None]
    bus_master: BusMasterState
    serial: int = 0
    length: int | None = None


class Channel(DataPort):
    """The command block's eight ports (see also `ControlPort`). Its owner sets `memory`, the loop of
    `worker`, `may_master` and `raise_line` when it is attached.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drives: list[Drive | None] = [None, None]
        self.memory: HostMemory | None = None
        self.worker = Worker()
        self.may_master: Callable[[], bool] = lambda: False
        self.raise_line: Callable[[], None] = lambda: None
        self.bus_master = BusMaster(self.try_dma, self.worker.settle)
        self.control = 0
        self._selected = 0
        self._line = False
        self._held_line: bool | None = None
        """While what a thread did is not saved: whether the line has risen."""
        self._unchanged = False
        """The access in hand has read a register, and changed nothing by that."""

    def keep(self) -> None:
        """Called at the end of an access: save what that may have changed."""
        unchanged, self._unchanged = self._unchanged, False
        if not unchanged:
            self.save()

    def save(self) -> None:
        """Save the state, where there is memory for it; the owner of the channel sets this."""

    # -- registers ----------------------------------------------------------------------------

    def _read_register(self, offset: int) -> int:
        drive = self.drives[self._selected]
        self._unchanged = offset != STATUS or drive is None or not drive.s.pending
        if offset == STATUS and drive is not None:
            if drive.s.pending:
                drive.s.pending = False
                self.interrupt_changed()
            return drive.s.status
        if drive is None:
            # Drive 0 answers for a missing drive 1, whose status is 0 (clause 9.16.1); nobody for drive 0.
            drive = self.drives[0]
            if drive is None or offset == STATUS:
                return 0
        return drive.read(offset, bool(self.control & HOB))

    def _block_done(self, block: bytearray | memoryview) -> None:
        if (drive := self.drives[self._selected]) is not None:
            drive.block_done(block)

    def alternate_status(self) -> int:
        """The status, read without acknowledging the interrupt (clause 7.2)."""
        drive = self.drives[self._selected]
        return 0 if drive is None else drive.s.status

    def _write_register(self, offset: int, value: int) -> None:
        self.control &= ~HOB  # clause 7.8.4
        if offset == COMMAND:
            self._command(value)
            return
        drive = self.drives[self._selected]
        if offset == DATA or (drive is not None and drive.is_busy):
            return
        for each in self.drives:
            if each is not None:
                each.write(offset, value)
        if offset == DEVICE:
            self._selected = int(bool(value & SECOND))
            self.interrupt_changed()

    def _command(self, command: int) -> None:
        drive = self.drives[self._selected]
        if command == Command.EXECUTE_DEVICE_DIAGNOSTIC:
            if not any(each is not None and each.s.status & BSY for each in self.drives):
                self._reset_drives()
                for first in [each for each in self.drives if each is not None][:1]:
                    first.interrupt()
        elif drive is not None and (not drive.is_busy or command == Command.DEVICE_RESET):
            if drive.is_busy:
                self._abandon()
            drive.begin(command)

    def write_control(self, value: int) -> None:
        """The device control register (clause 7.8): SRST resets both drives while it is set."""
        falling = self.control & ~value & SRST
        self.control = value & (HOB | SRST | NIEN)
        if value & SRST:
            self._reset_drives()
            for drive in self.drives:
                if drive is not None:
                    drive.s.status = BSY
        elif falling:
            self._reset_drives()
        self.interrupt_changed()

    def _reset_drives(self) -> None:
        self._abandon()
        self._selected = 0
        for drive in self.drives:
            if drive is not None:
                drive.reset()
                drive.s.device = 0

    def _abandon(self) -> None:
        """Forget what is in hand; a thread that works for it is waited for."""
        self.worker.forget()
        self._close_block()

    # -- the interrupt line -----------------------------------------------------------------------------

    def interrupt_changed(self) -> None:
        """The line follows the selected drive's interrupt, unless the host has disabled it (nIEN)."""
        drive = self.drives[self._selected]
        line = drive is not None and drive.s.pending and not self.control & NIEN
        if line and not self._line:
            self._line = True
            self.bus_master.interrupted()
            if self._held_line is None:
                self.raise_line()
            else:
                self._held_line = True
        self._line = line

    # -- DMA, and what runs in a thread -----------------------------------------------------------------

    def try_dma(self) -> None:
        """Move the data that the selected drive waits for, if the host lets the bus master run."""
        drive = self.drives[self._selected]
        if drive is None or drive.s.phase is not Phase.DMA or self.memory is None:
            return
        if not self.bus_master.running or not self.may_master():
            return
        wanted = drive.dma_bytes
        try:
            if self.bus_master.to_memory is drive.s.writes:
                raise MemoryAccessError(self.bus_master.state.table, 0, ())
            found = self.bus_master.scatter(self.memory, wanted)
        except MemoryAccessError:
            self.bus_master.finished(failed=True)
            drive.fail(ABRT)
            return
        drive.s.phase = Phase.BUSY

        def done(failure: BaseException | None) -> None:
            self.bus_master.finished(goes_on=found.goes_on, failed=failure is not None)
            if failure is None and found.size < wanted:
                drive.s.phase = Phase.NOTHING  # the drive asks for more, and nobody answers (section 3.1)
            else:
                drive.transferred(failure)

        self.run(functools.partial(drive.transfer, found.views), done)

    def run(self, work: Callable[[], None], then: Callable[[BaseException | None], None]) -> None:
        """See `Wires`. The host is interrupted once the outcome is saved, after which nothing is done again.
        """

        def done(failure: BaseException | None) -> None:
            self._held_line = False
            then(failure)
            self.save()
            risen, self._held_line = self._held_line, None
            if risen:
                self.raise_line()

        self.worker.run(work, done)

    # -- its life ---------------------------------------------------------------------------------------

    def detach(self) -> None:
        """Let go of the images, once the thread is done."""
        self.worker.close()
        self.let_go()
        self.memory = None
        for drive in self.drives:
            if drive is not None:
                drive.image.close()

    def snapshot(self) -> ChannelState:
        """The state, with nothing in a thread's hands."""
        self.worker.settle()
        drives = [None if drive is None else msgspec.structs.replace(drive.s) for drive in self.drives]
        block = None if self._block is None else bytes(self._block)
        master = msgspec.structs.replace(self.bus_master.state)
        return ChannelState(
            self.control, self._selected, self._line, block, self.at, self._out, drives, master
        )

    def kept(self) -> ChannelState:
        """The state, beside a block that is kept; what a thread has in hand is begun anew by a successor."""
        drives = [None if drive is None else drive.s for drive in self.drives]
        length = -1 if self._block is None else len(self._block)
        return ChannelState(
            self.control, self._selected, self._line, None, 0, self._out, drives, self.bus_master.state,
            self.serial, length,
        )  # fmt: skip

    def restore(self, state: ChannelState) -> None:
        """Continue from `state`; DMA that waited goes on at the next chance."""
        self._abandon()
        self.control, self._selected, self._line = state.control, state.selected, state.line
        for drive, saved in zip(self.drives, state.drives, strict=True):
            if drive is not None and saved is not None:
                drive.s = msgspec.structs.replace(saved)
        self.bus_master.state = msgspec.structs.replace(state.bus_master)
        drive = self.drives[self._selected]
        if drive is not None and state.block is not None:
            self.open_block(bytearray(state.block), out=state.out)
            self.at = state.at
            self._set_quick()
        if state.length is not None:
            self.resume_block(state.serial, state.length, state.out)
        if self.memory is not None:
            self.resume()

    def resume(self) -> None:
        """Go on with what waits for guest RAM, or was in a thread's hands; a rise of the line that a
        predecessor may not have told is told.
        """
        high = self._line
        for drive in self.drives:
            if drive is not None:
                drive.resume()
        self.try_dma()
        if high:
            self.raise_line()


class ControlPort:
    """The one port of a channel's control block: alternate status, and device control."""

    reads_change = False

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def keep(self) -> None:
        """Save the channel's state."""
        self._channel.keep()

    def read(self, offset: int, size: int) -> int:
        """The alternate status."""
        return self._channel.alternate_status()

    def write(self, offset: int, size: int, value: int) -> None:
        """Device control."""
        self._channel.write_control(value & 0xFF)
