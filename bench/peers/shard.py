"""shardio itself, from C as vCPU workers ask, and from Python as the peers are asked."""

from __future__ import annotations

import os
from collections.abc import Callable

from shardio.bench.blocks import address_array
from shardio.bench.pair import Handlers, Pair, Setting
from shardio.bench.peers.peer import READ, Session

BASE = 0xD000_0000
MMIO = 1


class PythonClient(Session):
    """A pair whose far process is a shard with the device, asked from Python."""

    name, title = "shardio-python", "shardio, Python client"

    def __init__(self, cpu: int) -> None:
        self._setting = Setting([Handlers(0, MMIO, BASE, 0x1000, "register")])
        self._pair = Pair([self._setting], (min(os.sched_getaffinity(0)), cpu))
        self._client = self._setting.client()
        self.line = self._pair.line

    def call(self, op: int, offset: int, size: int, value: int) -> int:
        if op == READ:
            return self._client.read(MMIO, BASE + offset, size)[1]
        self._client.write(MMIO, BASE + offset, size, value)
        return 0

    def echo(self, n: int, pause: int) -> None:
        self._pair.far.send("echo", n, pause)

    def echoed(self) -> None:
        """The last ping was the last of it."""

    def close(self) -> None:
        del self._client  # the segment stays mapped, and open, while it is held
        self._pair.close()


class CClient(PythonClient):
    """The same, the accesses made in C, as by a vCPU worker."""

    name, title = "shardio", "shardio, C client"

    def calls(self, n: int, clock: Callable[[], int]) -> list[int]:
        """Nanoseconds of `n` reads: their average, `n` times over, since they are timed as a block."""
        return [round(self._pair.work(self._client, n, MMIO, address_array([BASE])).ns)] * n
