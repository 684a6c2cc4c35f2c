"""`multiprocessing.Pipe`: tuples, pickled, through a pair of sockets."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any

from shardio.bench.peers.peer import Session, Wire, context


class Pipe(Wire):
    """Requests as tuples, replies as ints."""

    name, title = "pipe", "multiprocessing.Pipe"

    def connect(self) -> tuple[Any, ...]:
        self._ours, theirs = context.Pipe()
        self.put, self.get = self._ours.send, self._ours.recv
        return (theirs,)

    @classmethod
    def attach(cls, connection: Connection) -> Any:
        return connection.recv, connection.send

    def release(self) -> None:
        self._ours.close()


class BesideIdle(Session):
    """Where accesses go to no process that could answer pings: the floor's other end is a server of a pipe,
    which sleeps on `cpu` meanwhile.
    """

    def __init__(self, cpu: int) -> None:
        self._idle = Pipe(cpu)
        self.line = self._idle.line

    def echo(self, n: int, pause: int) -> None:
        self._idle.echo(n, pause)

    def echoed(self) -> None:
        self._idle.echoed()

    def close(self) -> None:
        self._idle.close()
