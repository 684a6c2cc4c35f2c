"""`Channel`: an IDE channel with up to two drives: the ports of its task file, and its interrupt line.

Facts. A boot loader moves a disk through the data port, a word an access, so that what an access costs here
decides how long it takes. Both drives hear what is written to registers; the selected one answers.

Consequences. A block that is being moved is a list of words in front of everything else, and the drive hears
of its last word only. What waits for the host's disk longer than a cached sector (DMA, a flush, a
verification) runs in a thread while the drive is busy; without an event loop it runs at once.

Source: ATA/ATAPI-6, clause 7.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from shardio.devices.ide.bus_master import BusMaster, BusMasterState
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
from shardio.errors import MemoryAccessError
from shardio.rate import guest_log

if TYPE_CHECKING:
    import asyncio

    from shardio.device import HostMemory

log = logging.getLogger("shardio.devices.ide")

_NO_WORDS = memoryview(bytearray(2)).cast("H")


class ChannelState(msgspec.Struct):
    """`selected`: 0 or 1; `block`: what the data port moves for that drive, `at` the next byte of it, `out`:
    from the host; `drives`: each one's registers, None where there is none.
    """

    control: int
    selected: int
    line: bool
    block: bytes | None
    at: int
    out: bool
    drives: list[DriveState | None]
    bus_master: BusMasterState


class _Job(NamedTuple):
    future: Future[BaseException | None]
    then: Callable[[BaseException | None], None]


class Channel:
    """The command block's eight ports (see also `ControlPort`). Its owner sets `memory`, `loop`, `may_master`
    and `raise_line` when it is attached.
    """

    def __init__(self) -> None:
        self.drives: list[Drive | None] = [None, None]
        self.memory: HostMemory | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.may_master: Callable[[], bool] = lambda: False
        self.raise_line: Callable[[], None] = lambda: None
        self.bus_master = BusMaster(self.try_dma, self.settle)
        self.control = 0
        self._selected = 0
        self._line = False
        self._pool: ThreadPoolExecutor | None = None
        self._job: _Job | None = None
        self._block: bytearray | None = None
        self._words = _NO_WORDS
        self._at = self._quick_in = self._quick_out = 0
        self._out = False

    # -- the data port ----------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """A port of the command block; a wider access than the port's is one of its neighbours too."""
        if not offset:
            at = self._at
            if at < self._quick_in and size == 2:
                self._at = at + 2
                return self._words[at >> 1]
            return self._read_data(size)
        if size == 1:
            return self._read_register(offset)
        return sum(self._read_register(offset + i) << 8 * i for i in range(min(size, 8 - offset)))

    def write(self, offset: int, size: int, value: int) -> None:
        """Likewise."""
        if not offset:
            at = self._at
            if at < self._quick_out and size == 2:
                self._at = at + 2
                self._words[at >> 1] = value
            else:
                self._write_data(size, value)
            return
        for i in range(min(size, 8 - offset)):
            self._write_register(offset + i, value >> 8 * i & 0xFF)

    def open_block(self, drive: Drive, block: bytearray, *, out: bool) -> None:
        """See `Wires`."""
        self._block, self._at, self._out = block, 0, out
        even = len(block) & ~1
        self._words = memoryview(block)[:even].cast("H")
        self._set_quick()

    def _set_quick(self) -> None:
        """Up to where words go without more ado: the last access of a block, whatever its width, is not one
        of these.
        """
        block = self._block
        limit = 0 if block is None or self._at & 1 else (len(block) & ~1) - 2
        self._quick_in, self._quick_out = (0, limit) if self._out else (limit, 0)

    def _close_block(self) -> None:
        self._block, self._words = None, _NO_WORDS
        self._at = self._quick_in = self._quick_out = 0

    def _read_data(self, size: int) -> int:
        block = self._block
        if block is None or self._out:
            return 0
        at = self._at
        value = int.from_bytes(block[at : at + size], "little")
        self._moved(block, size)
        return value

    def _write_data(self, size: int, value: int) -> None:
        block = self._block
        if block is None or not self._out:
            return
        at, room = self._at, min(size, len(block) - self._at)
        block[at : at + room] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")[:room]
        self._moved(block, size)

    def _moved(self, block: bytearray, size: int) -> None:
        self._at += size
        if self._at < len(block):
            self._set_quick()
            return
        drive = self.drives[self._selected]
        self._close_block()
        if drive is not None:
            drive.block_done(block)

    # -- the other registers ----------------------------------------------------------------------------

    def _read_register(self, offset: int) -> int:
        drive = self.drives[self._selected]
        if offset == STATUS and drive is not None:
            drive.s.pending = False
            self.interrupt_changed()
            return drive.s.status
        if drive is None:
            # Drive 0 answers for a missing drive 1, whose status is 0 (clause 9.16.1); nobody for drive 0.
            drive = self.drives[0]
            if drive is None or offset == STATUS:
                return 0
        return drive.read(offset, bool(self.control & HOB))

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
        job, self._job = self._job, None
        if job is not None:
            job.future.result()
        self._close_block()

    # -- the interrupt line -----------------------------------------------------------------------------

    def interrupt_changed(self) -> None:
        """The line follows the selected drive's interrupt, unless the host has disabled it (nIEN)."""
        drive = self.drives[self._selected]
        line = drive is not None and drive.s.pending and not self.control & NIEN
        if line and not self._line:
            self._line = True
            self.bus_master.interrupted()
            self.raise_line()
        self._line = line

    # -- DMA, and what runs in a thread -----------------------------------------------------------------

    def await_dma(self, drive: Drive) -> None:
        """See `Wires`."""
        self.try_dma()

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
        """See `Wires`."""
        loop = self.loop
        if loop is None:
            then(_attempt(work))
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="ide")
        future = self._pool.submit(_attempt, work)
        job = self._job = _Job(future, then)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._finish, job))

    def _finish(self, job: _Job) -> None:
        if self._job is job:
            self._job = None
            job.then(job.future.result())

    def settle(self) -> None:
        """Wait for the thread, and do what comes after it."""
        if (job := self._job) is not None:
            job.future.result()
            self._finish(job)

    # -- its life ---------------------------------------------------------------------------------------

    def detach(self) -> None:
        """Let go of the images, once the thread is done."""
        self.settle()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self.loop = self.memory = None
        for drive in self.drives:
            if drive is not None:
                drive.image.close()

    def snapshot(self) -> ChannelState:
        """The state, with nothing in a thread's hands."""
        self.settle()
        drives = [None if drive is None else msgspec.structs.replace(drive.s) for drive in self.drives]
        block = None if self._block is None else bytes(self._block)
        master = msgspec.structs.replace(self.bus_master.state)
        return ChannelState(
            self.control, self._selected, self._line, block, self._at, self._out, drives, master
        )

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
            self.open_block(drive, bytearray(state.block), out=state.out)
            self._at = state.at
            self._set_quick()
        self.try_dma()


class ControlPort:
    """The one port of a channel's control block: alternate status, and device control."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def read(self, offset: int, size: int) -> int:
        """The alternate status."""
        return self._channel.alternate_status()

    def write(self, offset: int, size: int, value: int) -> None:
        """Device control."""
        self._channel.write_control(value & 0xFF)


def _attempt(work: Callable[[], None]) -> BaseException | None:
    try:
        work()
    except OSError as error:
        return error
    except Exception as error:  # a command that is never answered would hang the guest
        if guest_log.admits():
            log.exception("an IDE drive fails a command")
        return error
    return None
