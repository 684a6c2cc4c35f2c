"""faster-fifo: a queue in shared memory each way, with a POSIX mutex and condition variable."""

from __future__ import annotations

from typing import Any

from shardio.bench.peers.peer import STOP, Peer, Server, Session, Wire

QUEUE_BYTES = 65536
TIMEOUT_S = 60.0


class FifoWire(Wire):
    """Requests as tuples, replies as ints."""

    def __init__(self, cpu: int) -> None:
        import faster_fifo
        import faster_fifo_reduction  # noqa: F401  (teaches multiprocessing to pass its queues)

        self._requests: Any = faster_fifo.Queue(max_size_bytes=QUEUE_BYTES)
        self._replies: Any = faster_fifo.Queue(max_size_bytes=QUEUE_BYTES)
        super().__init__(serve, cpu, self._requests, self._replies)

    def send(self, op: int, offset: int, size: int, value: int) -> None:
        """One tuple."""
        self._requests.put((op, offset, size, value))

    def receive(self) -> int:
        """One int."""
        value: int = self._replies.get(timeout=TIMEOUT_S)
        return value

    def close(self) -> None:
        """End the server."""
        super().close()
        self._requests.close()
        self._replies.close()
        self._requests = self._replies = None


class FasterFifo(Peer):
    """faster-fifo."""

    name, title, package = "faster-fifo", "faster-fifo, two queues", "faster_fifo"

    def open(self, cpu: int) -> Session:
        """A server between two queues."""
        return FifoWire(cpu)


def serve(cpu: int, shared: Any, requests: Any, replies: Any) -> None:
    """The server's main."""
    server = Server(cpu, shared)
    while (request := requests.get(timeout=TIMEOUT_S))[0] != STOP:
        replies.put(server.answer(*request))
