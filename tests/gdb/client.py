"""A debugger of a few lines: packets to a server and their answers, each waited for a bounded time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from shardio.gdb.address import parse
from shardio.gdb.rsp import Framer, Packet, frame

PATIENCE_S = 30.0
I386_GENERAL = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip")


class Client:
    """Connected to `where`. It acknowledges nothing, and skips what acknowledges."""

    def __init__(self, where: str) -> None:
        address = parse(where)
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(address)
        self._framer = Framer()
        self._came: list[bytes] = []

    def send(self, packet: str | bytes) -> None:
        """A packet, framed."""
        self.socket.sendall(frame(packet.encode() if isinstance(packet, str) else packet))

    def receive(self) -> str:
        """The next packet; "" at the connection's end is a `ConnectionError`."""
        while not self._came:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the server has gone")
            found = self._framer.feed(data)
            self._came += [event.body for event in found if isinstance(event, Packet)]
        return self._came.pop(0).decode("latin-1")

    def ask(self, packet: str | bytes) -> str:
        """The answer to a packet."""
        self.send(packet)
        return self.receive()

    def registers(self) -> dict[str, int]:
        """The general registers of the chosen thread, of an i386."""
        text = self.ask("g")
        words = (bytes.fromhex(text[8 * n : 8 * n + 8]) for n in range(len(I386_GENERAL)))
        return {
            name: int.from_bytes(word, "little") for name, word in zip(I386_GENERAL, words, strict=True)
        }

    def word(self, address: int) -> int:
        """32 bits of memory."""
        return int.from_bytes(bytes.fromhex(self.ask(f"m{address:x},4")), "little")


@contextmanager
def connected(where: str) -> Iterator[Client]:
    """A `Client` that is closed at the end."""
    client = Client(where)
    try:
        yield client
    finally:
        client.socket.close()
