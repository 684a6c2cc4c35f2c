"""What the tests of interrupt controllers and timer stand on: all ranges of a device on a bare `IoManager`,
and a host whose interrupts record.
"""

from __future__ import annotations

from typing import Any

from shardio.interrupt import InterruptManager, RecordingBackend
from shardio.interrupt.wires import INTA, wired
from shardio.io_manager import IoManager
from shardio.range import PioRange
from tests.devices.support import RecordingHost

PIC_LINES, IOAPIC_LINES = 0xFFFF_FFFF_FFFF_0000, 0xFFFF_FFFF_FFFF_1000


class Board:
    """A device in all its ranges."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.manager = IoManager()
        for span in device.ranges:
            if isinstance(span, PioRange):
                self.manager.register_pio(span, device)
            else:
                self.manager.register_mmio(span, device)

    def inb(self, port: int, size: int = 1) -> int:
        data = bytearray(size)
        self.manager.pio_read(port, data)
        return int.from_bytes(data, "little")

    def outb(self, port: int, value: int, size: int = 1) -> None:
        self.manager.pio_write(port, value.to_bytes(size, "little"))

    def load(self, address: int, size: int = 4) -> int:
        data = bytearray(size)
        self.manager.mmio_read(address, data)
        return int.from_bytes(data, "little")

    def store(self, address: int, value: int, size: int = 4) -> None:
        self.manager.mmio_write(address, value.to_bytes(size, "little"))

    def wires(self, address: int, pulses: int = 0, levels: int = 0) -> None:
        self.store(address, wired(pulses, levels), 8)

    def inta(self) -> int:
        return self.load(PIC_LINES + INTA)


class InterruptHost(RecordingHost):
    """A host that hands recording interrupts out. Close its backend."""

    def __init__(self) -> None:
        super().__init__()
        self.backend = RecordingBackend()
        self.interrupts = InterruptManager(self.backend)

    def close(self) -> None:
        self.interrupts.close()
        self.backend.close()
