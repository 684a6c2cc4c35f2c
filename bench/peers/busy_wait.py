"""Shared memory polled from Python on both sides: the best that needs no compiled code."""

from __future__ import annotations

from typing import Any

from shardio.bench.peers.peer import STOP, Peer, Server, Session, Wire, context

WORDS = 8
TURN, OP, OFFSET, SIZE, VALUE = range(5)


class BusyWire(Wire):
    """A turn word, odd while the request is out, and the access's words beside it."""

    def __init__(self, cpu: int) -> None:
        self._array: Any = context.RawArray("Q", WORDS)
        self._words = memoryview(self._array).cast("B").cast("Q")
        super().__init__(serve, cpu, self._array)

    def send(self, op: int, offset: int, size: int, value: int) -> None:
        """Fill the words, then take the turn."""
        words = self._words
        words[OP], words[OFFSET], words[SIZE], words[VALUE] = op, offset, size, value
        words[TURN] += 1

    def receive(self) -> int:
        """Poll for the turn."""
        words = self._words
        while words[TURN] & 1:
            pass
        return words[VALUE]

    def close(self) -> None:
        """End the server, let go of the words."""
        super().close()
        self._words.release()


class BusyWait(Peer):
    """Pure-Python shared memory."""

    name, title = "busy-wait", "pure-Python shared memory, busy wait"

    def open(self, cpu: int) -> Session:
        """A server that polls."""
        return BusyWire(cpu)


def serve(cpu: int, shared: Any, array: Any) -> None:
    """The server's main."""
    server = Server(cpu, shared)
    words = memoryview(array).cast("B").cast("Q")
    while True:
        while not words[TURN] & 1:
            pass
        if words[OP] == STOP:
            return
        words[VALUE] = server.answer(words[OP], words[OFFSET], words[SIZE], words[VALUE])
        words[TURN] += 1
