"""One process: a vCPU thread that leaves the guest, takes the GIL and asks an `IoManager`; no other
process at all.

Its latency is the best there is while one vCPU runs; `shardio bench scaling` shows what two of them get.
"""

from __future__ import annotations

from shardio._measure import lib
from shardio.address import MmioAddress
from shardio.bench.devices import Register
from shardio.bench.peers.peer import READ
from shardio.bench.peers.pipe import BesideIdle
from shardio.io_manager import IoManager
from shardio.range import MmioRange


class OneProcess(BesideIdle):
    """Calls in this process."""

    name, title = "one-process", "one process, an IoManager under the GIL (1 vCPU)"

    def __init__(self, cpu: int) -> None:
        super().__init__(cpu)
        self._manager, self._data = IoManager(), memoryview(bytearray(4))
        self._manager.register_mmio(MmioRange(0, 0x1000), Register())

    def call(self, op: int, offset: int, size: int, value: int) -> int:
        """An exit (the GIL goes and comes back), then the dispatch."""
        lib.sio_measure_leave()
        if op == READ:
            self._manager.mmio_read(MmioAddress(offset), self._data[:size])
            return int.from_bytes(self._data[:size], "little")
        self._manager.mmio_write(MmioAddress(offset), value.to_bytes(size, "little"))
        return 0
