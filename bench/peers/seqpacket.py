"""A SOCK_SEQPACKET pair and one packet each way: the pattern of crosvm's proxied devices, whose process
waits in `recv`.
"""

from __future__ import annotations

import socket
from struct import Struct
from typing import Any

from shardio.bench.peers.peer import STOP, Peer, Server, Session, Wire

REQUEST = Struct("<B3xIQQ")
"""Operation, size, offset, value."""
REPLY = Struct("<Q")


class SeqPacketWire(Wire):
    """Fixed structs."""

    def __init__(self, cpu: int) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        super().__init__(serve, cpu, theirs)
        theirs.close()

    def send(self, op: int, offset: int, size: int, value: int) -> None:
        """One packet."""
        self._ours.send(REQUEST.pack(op, size, offset, value))

    def receive(self) -> int:
        """One packet."""
        value: int = REPLY.unpack(self._ours.recv(REPLY.size))[0]
        return value

    def close(self) -> None:
        """End the server, close our end."""
        super().close()
        self._ours.close()


class SeqPacket(Peer):
    """The message pattern of crosvm's proxy device."""

    name, title = "seqpacket", "SOCK_SEQPACKET, crosvm's pattern"

    def open(self, cpu: int) -> Session:
        """A server at the other end of a socket pair."""
        return SeqPacketWire(cpu)


def serve(cpu: int, shared: Any, connection: socket.socket) -> None:
    """The server's main."""
    server = Server(cpu, shared)
    while True:
        op, size, offset, value = REQUEST.unpack(connection.recv(REQUEST.size))
        if op == STOP:
            return
        connection.send(REPLY.pack(server.answer(op, offset, size, value)))
