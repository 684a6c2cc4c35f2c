"""A session without a server of its own: an idle process is the floor's other end."""

from __future__ import annotations

from shardio.bench.peers.peer import Session
from shardio.bench.peers.pipe import Pipe


class BesideIdle(Session):
    """Where accesses do not go to a process that answers pings; that one is on `cpu`."""

    def __init__(self, cpu: int) -> None:
        self._idle = Pipe(cpu)
        self.line = self._idle.line

    def echo(self, n: int, pause: int) -> None:
        self._idle.echo(n, pause)

    def echoed(self) -> None:
        self._idle.echoed()

    def close(self) -> None:
        self._idle.close()
