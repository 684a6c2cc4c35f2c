"""`multiprocessing.Pipe`: tuples, pickled, through a pair of sockets."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any

from shardio.bench.peers.peer import STOP, Peer, Server, Session, Wire, context


class PipeWire(Wire):
    """Requests as tuples, replies as ints."""

    def __init__(self, cpu: int) -> None:
        self._ours, theirs = context.Pipe()
        super().__init__(serve, cpu, theirs)
        theirs.close()

    def send(self, op: int, offset: int, size: int, value: int) -> None:
        """One tuple."""
        self._ours.send((op, offset, size, value))

    def receive(self) -> int:
        """One int."""
        value: int = self._ours.recv()
        return value

    def close(self) -> None:
        """End the server, close our end."""
        super().close()
        self._ours.close()


class Pipe(Peer):
    """multiprocessing.Pipe."""

    name, title = "pipe", "multiprocessing.Pipe"

    def open(self, cpu: int) -> Session:
        """A server at the other end of a pipe."""
        return PipeWire(cpu)


def serve(cpu: int, shared: Any, connection: Connection) -> None:
    """The server's main."""
    server = Server(cpu, shared)
    while (request := connection.recv())[0] != STOP:
        connection.send(server.answer(*request))
