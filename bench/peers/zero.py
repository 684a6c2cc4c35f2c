"""ZeroMQ: a PAIR over an ipc socket."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

from shardio.bench.peers.peer import STOP, Peer, Server, Session, Wire
from shardio.bench.peers.seqpacket import REPLY, REQUEST


class ZeroWire(Wire):
    """The structs of `seqpacket`, as ZeroMQ messages."""

    def __init__(self, cpu: int) -> None:
        import zmq

        self._path = Path(tempfile.gettempdir()) / f"shardio-bench-{os.getpid()}-{secrets.token_hex(4)}"
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.bind(f"ipc://{self._path}")
        super().__init__(serve, cpu, str(self._path))

    def send(self, op: int, offset: int, size: int, value: int) -> None:
        """One message."""
        self._socket.send(REQUEST.pack(op, size, offset, value))

    def receive(self) -> int:
        """One message."""
        value: int = REPLY.unpack(self._socket.recv())[0]
        return value

    def close(self) -> None:
        """End the server, close the socket and its file."""
        super().close()
        self._socket.close(0)
        self._context.term()
        self._path.unlink(missing_ok=True)


class ZeroMq(Peer):
    """pyzmq."""

    name, title, package = "pyzmq", "pyzmq, PAIR over ipc", "zmq"

    def open(self, cpu: int) -> Session:
        """A server at the other end of an ipc socket."""
        return ZeroWire(cpu)


def serve(cpu: int, shared: Any, path: str) -> None:
    """The server's main."""
    import zmq

    server = Server(cpu, shared)
    with zmq.Context() as own, own.socket(zmq.PAIR) as connection:
        connection.connect(f"ipc://{path}")
        while True:
            op, size, offset, value = REQUEST.unpack(connection.recv())
            if op == STOP:
                return
            connection.send(REPLY.pack(server.answer(op, offset, size, value)))
