"""`BusMaster`: the DMA engine of one IDE channel: three registers, and descriptors in guest RAM.

Source: Programming Interface for Bus Master IDE Controller, revision 1.0 (Intel, 1994). A descriptor (PRD) is
8 bytes: an address, a count of bytes (0 is 64 KiB), and a bit that ends the table. The table and what it
names are read once, when the drive and the host are both ready.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from shardio.device import HostMemory

COMMAND, STATUS, TABLE = 0, 2, 4
REGISTERS: Final = 8
"""Bytes of one channel's registers."""

START, TO_MEMORY = 0x01, 0x08
ACTIVE, ERROR, INTERRUPT = 0x01, 0x02, 0x04
_DRIVES_CAPABLE: Final = 0x60

_PRD: Final = struct.Struct("<IHH")
_END_OF_TABLE: Final = 0x8000
_MOST_PRDS: Final = 0x10000 // 8
"""A table does not cross 64 KiB (section 1.2)."""


class Scattered(NamedTuple):
    """The memory of a transfer: `views` of it, and whether the table `goes_on` past the transfer's end."""

    views: list[memoryview]
    size: int
    goes_on: bool


class BusMasterState(msgspec.Struct):
    """The three registers."""

    command: int = 0
    status: int = 0
    table: int = 0


class BusMaster:
    """The registers of a channel. `started` and `stopped` are called when the host starts or stops it."""

    def __init__(self, started: Callable[[], None], stopped: Callable[[], None]) -> None:
        self.state = BusMasterState()
        self._started = started
        self._stopped = stopped

    @property
    def running(self) -> bool:
        """Whether the host wants it to move data."""
        return bool(self.state.command & START and self.state.status & ACTIVE)

    @property
    def to_memory(self) -> bool:
        """Whether it is to write guest RAM."""
        return bool(self.state.command & TO_MEMORY)

    def read(self, offset: int, size: int) -> int:
        """`size` bytes of the registers, little-endian."""
        s = self.state
        raw = struct.pack("<BxBxI", s.command, s.status, s.table)
        return int.from_bytes(raw[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """The command and status registers are bytes; the table's address is a double word."""
        s = self.state
        if offset == COMMAND:
            self._command(value & (START | TO_MEMORY))
        elif offset == STATUS:
            cleared = s.status & ~(value & (ERROR | INTERRUPT) | _DRIVES_CAPABLE)
            s.status = cleared | value & _DRIVES_CAPABLE
        elif offset >= TABLE and offset + size <= REGISTERS:
            shift = 8 * (offset - TABLE)
            mask = ((1 << 8 * size) - 1) << shift
            s.table = (s.table & ~mask | value << shift & mask) & ~3

    def _command(self, value: int) -> None:
        s = self.state
        if s.command & START:
            s.command = s.command & ~START | value & START  # the direction stays while it runs
        else:
            s.command = value
            if value & START:
                s.status |= ACTIVE
                self._started()
                return
        if not value & START:
            self._stopped()
            s.status &= ~ACTIVE

    def scatter(self, memory: HostMemory, wanted: int) -> Scattered:
        """Views of the memory that the table names, `wanted` bytes at most.

        Raises MemoryAccessError for what is not in guest RAM.
        """
        views: list[memoryview] = []
        left, at, more = wanted, self.state.table, True
        for _ in range(_MOST_PRDS):
            if not left or not more:
                break
            address, count, flags = _PRD.unpack(memory.read(at, _PRD.size))
            size = (count & 0xFFFE) or 0x10000
            views.append(memory.view(address & ~1, min(size, left)))
            more = not flags & _END_OF_TABLE or size > left
            left -= len(views[-1])
            at += _PRD.size
        return Scattered(views, wanted - left, more)

    def interrupted(self) -> None:
        """The channel's interrupt line has risen (section 2.2, bit 2)."""
        self.state.status |= INTERRUPT

    def finished(self, *, goes_on: bool = False, failed: bool = False) -> None:
        """The transfer is over: the table is at its end, or not; or it named what is no RAM."""
        if not goes_on:
            self.state.status &= ~ACTIVE
        if failed:
            self.state.status |= ERROR
