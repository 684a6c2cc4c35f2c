"""faster-fifo: a queue in shared memory each way, with a POSIX mutex and condition variable."""

from __future__ import annotations

from functools import partial
from typing import Any

from shardio.bench.peers.peer import Wire

QUEUE_BYTES = 65536
TIMEOUT_S = 60.0


class FasterFifo(Wire):
    """Requests as tuples, replies as ints."""

    name, title, package = "faster-fifo", "faster-fifo, two queues", "faster_fifo"

    def connect(self) -> tuple[Any, ...]:
        import faster_fifo
        import faster_fifo_reduction  # noqa: F401  (teaches multiprocessing to pass its queues)

        self._queues: tuple[Any, ...] = tuple(faster_fifo.Queue(max_size_bytes=QUEUE_BYTES) for _ in range(2))
        self.put, self.get = self._queues[0].put, partial(self._queues[1].get, timeout=TIMEOUT_S)
        return self._queues

    @classmethod
    def attach(cls, requests: Any, replies: Any) -> Any:
        return partial(requests.get, timeout=TIMEOUT_S), replies.put

    def release(self) -> None:
        for queue in self._queues:
            queue.close()
        self._queues = ()
