"""vCPU threads share one `IoManager`; a device that has state needs a lock, as in any VMM."""

from __future__ import annotations

import threading

from shardio import IoManager, MmioAddress, MmioRange
from shardio.bench.devices import Register

BASE = 0xD000_0000


class Served:
    """Nobody sleeps, nobody polls."""

    def __init__(self, _folder: str, _cpu: int) -> None:
        manager, lock, data = IoManager(), threading.Lock(), memoryview(bytearray(8))
        manager.register_mmio(MmioRange(BASE, 0x1000), Register())

        def access(op: int, offset: int, size: int, value: int) -> int:
            with lock:
                if op == 0:
                    manager.mmio_read(MmioAddress(BASE + offset), data[:size])
                    return int.from_bytes(data[:size], "little")
                manager.mmio_write(MmioAddress(BASE + offset), value.to_bytes(size, "little"))
            return 0

        self.access = access
        self.wake = self.rest = self.close = lambda: None
