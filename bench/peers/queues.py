"""`multiprocessing.Queue`: one each way, with the feeder thread that such a queue has."""

from __future__ import annotations

from typing import Any

from shardio.bench.peers.peer import Wire, context


class Queue(Wire):
    """Requests as tuples, replies as ints."""

    name, title = "queue", "multiprocessing.Queue, two of them"

    def connect(self) -> tuple[Any, ...]:
        self._queues: tuple[Any, ...] = context.Queue(), context.Queue()
        self.put, self.get = self._queues[0].put, self._queues[1].get
        return self._queues

    @classmethod
    def attach(cls, requests: Any, replies: Any) -> Any:
        return requests.get, replies.put

    def release(self) -> None:
        for queue in self._queues:
            queue.close()
            queue.join_thread()
        self._queues = ()  # their semaphores' names go with them
