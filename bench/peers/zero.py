"""ZeroMQ: a PAIR over an ipc socket, with the structs of `seqpacket` as messages."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

from shardio.bench.peers.peer import Wire
from shardio.bench.peers.seqpacket import REPLY, REQUEST


class ZeroMq(Wire):
    """pyzmq."""

    name, title, package = "pyzmq", "pyzmq, PAIR over ipc", "zmq"

    def connect(self) -> tuple[Any, ...]:
        import zmq

        self._path = Path(tempfile.gettempdir()) / f"shardio-bench-{os.getpid()}-{secrets.token_hex(4)}"
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.bind(f"ipc://{self._path}")
        send, recv = self._socket.send, self._socket.recv
        self.put = lambda request: send(REQUEST.pack(*request))
        self.get = lambda: REPLY.unpack(recv())[0]
        return (str(self._path),)

    @classmethod
    def attach(cls, path: str) -> Any:
        import zmq

        connection: Any = zmq.Context.instance().socket(zmq.PAIR)
        connection.connect(f"ipc://{path}")
        return (lambda: REQUEST.unpack(connection.recv()), lambda value: connection.send(REPLY.pack(value)))

    def release(self) -> None:
        self._socket.close(0)
        self._context.term()
        self._path.unlink(missing_ok=True)
