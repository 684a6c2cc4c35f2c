"""A guest's side of the IDE controller: a driver that knows the ports of both channels, and the function's
configuration space.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shardio import IoManager, PioRange
from shardio.devices import PciBus
from shardio.devices.ide.registers import BSY, DRQ, ERR, SRST
from shardio.devices.pci_ports import IO_WINDOW
from shardio.interrupt import InterruptManager, RecordingBackend
from shardio.memory import GuestMemory
from tests.devices.support import RecordingHost

TYPE = "shardio.devices.ide:PiixIde"
SECTOR = 512
RAM = 0x40000
CONFIG = 0xCF8
MASTER = 0xC000
COMMAND_BLOCK, CONTROL_PORT = (0x1F0, 0x170), (0x3F6, 0x376)
LINES = (14, 15)
PRD_TABLE = 0x1000
LBA = 0x40


class IdeHost(RecordingHost):
    """A host with RAM and interrupt lines; without a loop what a thread would do is done at once."""

    def __init__(self, memory: Any, interrupts: InterruptManager | None, loop: Any = None) -> None:
        super().__init__()
        self.loop = loop
        self.memory = memory
        self.interrupts = interrupts


class IdeGuest:
    """A driver of one channel (0 or 1) of the controller at 00:01.0."""

    def __init__(self, bus: PciBus, memory: GuestMemory, backend: RecordingBackend, channel: int = 0) -> None:
        self.bus, self.memory, self.backend = bus, memory, backend
        self.channel, self._came = channel, 0
        self.base, self.control_port = COMMAND_BLOCK[channel], CONTROL_PORT[channel]
        self.master = MASTER + 8 * channel
        self.manager = IoManager()
        self.manager.register_pio(PioRange(CONFIG, 8), bus)
        for span in PciBus.further_ranges([{"type": TYPE}]):
            self.manager.register_pio(span, bus)

    def of(self, channel: int) -> IdeGuest:
        """The driver of the other channel."""
        return IdeGuest(self.bus, self.memory, self.backend, channel)

    # -- ports ------------------------------------------------------------------------------------------

    def inp(self, port: int, size: int = 1) -> int:
        data = bytearray(size)
        self.manager.pio_read(port, data)
        return int.from_bytes(data, "little")

    def out(self, port: int, value: int, size: int = 1) -> None:
        self.manager.pio_write(port, value.to_bytes(size, "little"))

    def get(self, register: int) -> int:
        return self.inp(self.base + register)

    def set(self, register: int, value: int) -> None:
        self.out(self.base + register, value)

    @property
    def status(self) -> int:
        """Read as a driver does: the interrupt is acknowledged."""
        return self.get(7)

    @property
    def alternate(self) -> int:
        return self.inp(self.control_port)

    @property
    def error(self) -> int:
        return self.get(1)

    @property
    def interrupts(self) -> int:
        """How many have come so far."""
        self._came += self.backend.delivered(gsi=LINES[self.channel])
        return self._came

    def config(self, register: int, size: int = 4) -> int:
        self.out(CONFIG, 0x8000_0800 | register & 0xFC, 4)
        return self.inp(CONFIG + 4 + register % 4, size)

    def set_config(self, register: int, value: int, size: int = 4) -> None:
        self.out(CONFIG, 0x8000_0800 | register & 0xFC, 4)
        self.out(CONFIG + 4 + register % 4, value, size)

    # -- commands ---------------------------------------------------------------------------------------

    def select(self, drive: int, extra: int = 0xA0) -> None:
        self.set(6, extra | drive << 4)

    def address(self, lba: int, count: int, drive: int = 0) -> None:
        """28-bit LBA."""
        self.set(6, 0xA0 | LBA | drive << 4 | lba >> 24 & 0x0F)
        for register, value in ((2, count), (3, lba), (4, lba >> 8), (5, lba >> 16)):
            self.set(register, value & 0xFF)

    def wide_address(self, lba: int, count: int, drive: int = 0) -> None:
        """48-bit LBA: each register twice, the high byte first."""
        self.set(6, 0xA0 | LBA | drive << 4)
        for register, low, high in ((2, 0, 8), (3, 0, 24), (4, 8, 32), (5, 16, 40)):
            source = count if register == 2 else lba
            self.set(register, source >> high & 0xFF)
            self.set(register, source >> low & 0xFF)

    def command(self, code: int) -> int:
        """Give a command; the status after it."""
        self.set(7, code)
        return self.status

    def read_block(self, size: int = SECTOR, width: int = 2) -> bytes:
        parts = [self.inp(self.base, width) for _ in range(-(-size // width))]
        return b"".join(part.to_bytes(width, "little") for part in parts)

    def write_block(self, data: bytes, width: int = 2) -> None:
        for at in range(0, len(data), width):
            self.out(self.base, int.from_bytes(data[at : at + width], "little"), width)

    def read_sectors(self, code: int, sectors: int, per_block: int = 1, width: int = 2) -> bytes:
        """Give the command and take its blocks, as many as the status says that there are."""
        data, status = b"", self.command(code)
        while status & DRQ:
            assert not status & (BSY | ERR)
            data += self.read_block(min(per_block * SECTOR, sectors * SECTOR - len(data)), width)
            status = self.status
        return data

    def write_sectors(self, code: int, data: bytes, per_block: int = 1, width: int = 2) -> int:
        """Give the command and its blocks; the status at the end."""
        status, at = self.command(code), 0
        while status & DRQ:
            block = data[at : at + per_block * SECTOR]
            at += len(block)
            self.write_block(block, width)
            status = self.status
        return status

    def reset(self) -> None:
        self.out(self.control_port, SRST)
        self.out(self.control_port, 0)

    # -- packets ----------------------------------------------------------------------------------------

    def packet(self, *octets: int, limit: int = 0xFFFE, features: int = 0) -> tuple[bytes, int]:
        """Send a packet command; what it gives by PIO, and the status at the end."""
        for register, value in ((1, features), (4, limit & 0xFF), (5, limit >> 8)):
            self.set(register, value)
        assert self.command(0xA0) & DRQ
        assert self.get(2) == 1
        self.write_block(bytes(octets).ljust(12, b"\0"))
        data, status = b"", self.status
        while status & DRQ:
            assert self.get(2) == 2
            size = self.get(4) | self.get(5) << 8
            data += self.read_block(size)[:size]
            status = self.status
        return data, status

    # -- DMA --------------------------------------------------------------------------------------------

    def enable_master(self) -> None:
        """I/O decoding and bus mastering."""
        self.set_config(4, 0x0005, 2)

    def prds(self, *entries: tuple[int, int], last: bool = True) -> None:
        """Write a descriptor table, and say where it is."""
        table = b"".join(struct.pack("<IHH", at, size & 0xFFFF, 0) for at, size in entries)
        if last:
            table = table[:-1] + b"\x80"
        self.memory.write(PRD_TABLE, table)
        self.out(self.master + 4, PRD_TABLE, 4)

    def start_dma(self, *, to_memory: bool) -> None:
        self.out(self.master + 2, 0x06)
        self.out(self.master, 0x08 * to_memory)
        self.out(self.master, 0x08 * to_memory | 1)

    def stop_dma(self) -> int:
        """Stop it; what its status was before that."""
        status = self.inp(self.master + 2)
        self.out(self.master, 0)
        return status


Make = Callable[..., IdeGuest]


@contextmanager
def ide_guest(loop: Any = None, **options: Any) -> Iterator[IdeGuest]:
    """A controller in a host, and its primary channel's driver."""
    bus = PciBus(functions=[{"type": TYPE, **options}])
    with GuestMemory(RAM) as memory, RecordingBackend() as backend, InterruptManager(backend) as interrupts:
        bus.attach(IdeHost(memory, interrupts, loop))
        try:
            yield IdeGuest(bus, memory, backend)
        finally:
            bus.detach()


def image_of(path: Path, sectors: int, size: int = SECTOR) -> bytes:
    """Writes an image whose every 16-bit word differs from its neighbours, and gives its bytes."""
    data = b"".join(struct.pack("<HH", n & 0xFFFF, n >> 16 ^ 0x5AA5) for n in range(sectors * size // 4))
    path.write_bytes(data)
    return data


assert IO_WINDOW.base == MASTER
