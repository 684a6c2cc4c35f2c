"""`multiprocessing.Queue`: one each way, with the feeder thread that such a queue has."""

from __future__ import annotations

from typing import Any

from shardio.bench.peers.peer import STOP, Peer, Server, Session, Wire, context


class QueueWire(Wire):
    """Requests as tuples, replies as ints."""

    def __init__(self, cpu: int) -> None:
        self._requests: Any = context.Queue()
        self._replies: Any = context.Queue()
        super().__init__(serve, cpu, self._requests, self._replies)

    def send(self, op: int, offset: int, size: int, value: int) -> None:
        """One tuple."""
        self._requests.put((op, offset, size, value))

    def receive(self) -> int:
        """One int."""
        value: int = self._replies.get()
        return value

    def close(self) -> None:
        """End the server and the feeder threads."""
        super().close()
        for queue in (self._requests, self._replies):
            queue.close()
            queue.join_thread()
        self._requests = self._replies = None  # their semaphores' names go with them


class Queue(Peer):
    """multiprocessing.Queue."""

    name, title = "queue", "multiprocessing.Queue, two of them"

    def open(self, cpu: int) -> Session:
        """A server between two queues."""
        return QueueWire(cpu)


def serve(cpu: int, shared: Any, requests: Any, replies: Any) -> None:
    """The server's main."""
    server = Server(cpu, shared)
    while (request := requests.get())[0] != STOP:
        replies.put(server.answer(*request))
