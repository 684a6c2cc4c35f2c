"""`multiprocessing.Pipe`: tuples, pickled, through a pair of sockets."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any

from shardio.bench.peers.peer import Wire, context


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
