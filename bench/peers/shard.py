"""shardio itself, from C as vCPU workers ask, and from Python as the peers are asked."""

from __future__ import annotations

import os
from collections.abc import Callable

from shardio.bench import messages
from shardio.bench.blocks import address_array
from shardio.bench.messages import Echo, Handlers
from shardio.bench.pair import Pair, Setting
from shardio.bench.peers.peer import READ, Peer, Session

BASE = 0xD000_0000
MMIO = 1


class ShardSession(Session):
    """A pair whose far process is a shard with the device."""

    def __init__(self, cpu: int) -> None:
        self._setting = Setting([Handlers(0, MMIO, BASE, 0x1000, "register")])
        self._pair = Pair([self._setting], (min(os.sched_getaffinity(0)), cpu))
        self._client = self._setting.client()
        self.line = self._pair.line

    def call(self, op: int, offset: int, size: int, value: int) -> int:
        """Through the client's Python face."""
        if op == READ:
            return self._client.read(MMIO, BASE + offset, size)[1]
        self._client.write(MMIO, BASE + offset, size, value)
        return 0

    def echo(self, n: int) -> None:
        """By the shard's process."""
        messages.send(self._pair.far.socket, Echo(n))

    def echoed(self) -> None:
        """The last ping was the last of it."""

    def close(self) -> None:
        """End the far process."""
        del self._client  # the segment stays mapped, and open, while it is held
        self._pair.close()


class CSession(ShardSession):
    """The same, the accesses made in C."""

    def calls(self, n: int, clock: Callable[[], int]) -> list[int]:
        """Nanoseconds of `n` reads: their average, `n` times over, since they are timed as a block."""
        block = self._pair.work(self._client, n, MMIO, address_array([BASE]))
        return [round(block.ns)] * n


class PythonClient(Peer):
    """shardio, asked from Python."""

    name, title = "shardio-python", "shardio, Python client"

    def open(self, cpu: int) -> Session:
        """A shard."""
        return ShardSession(cpu)


class CClient(Peer):
    """shardio, asked from C, as by a vCPU worker."""

    name, title = "shardio", "shardio, C client"

    def open(self, cpu: int) -> Session:
        """A shard."""
        return CSession(cpu)
