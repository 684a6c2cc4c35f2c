"""A SOCK_SEQPACKET pair and one packet each way: the pattern of crosvm's proxied devices, whose process
waits in `recv`.
"""

from __future__ import annotations

import socket
from struct import Struct
from typing import Any

from shardio.bench.peers.peer import Wire

REQUEST = Struct("<QQQQ")
"""Operation, offset, size, value."""
REPLY = Struct("<Q")


class SeqPacket(Wire):
    """Fixed structs."""

    name, title = "seqpacket", "SOCK_SEQPACKET, crosvm's pattern"

    def connect(self) -> tuple[Any, ...]:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        send, recv = self._ours.send, self._ours.recv
        self.put = lambda request: send(REQUEST.pack(*request))
        self.get = lambda: REPLY.unpack(recv(REPLY.size))[0]
        return (theirs,)

    @classmethod
    def attach(cls, connection: socket.socket) -> Any:
        return (
            lambda: REQUEST.unpack(connection.recv(REQUEST.size)),
            lambda value: connection.send(REPLY.pack(value)),
        )

    def release(self) -> None:
        self._ours.close()
