"""Shared memory polled from Python on both sides: the best that needs no compiled code."""

from __future__ import annotations

from typing import Any

from shardio.bench.peers.peer import Request, Wire, context

WORDS = 8
TURN, OP, OFFSET, SIZE, VALUE = range(5)


class BusyWait(Wire):
    """A turn word, odd while the request is out, and the access's words beside it."""

    name, title = "busy-wait", "pure-Python shared memory, busy wait"

    def connect(self) -> tuple[Any, ...]:
        array: Any = context.RawArray("Q", WORDS)
        words = self._words = memoryview(array).cast("B").cast("Q")

        def put(request: Request) -> None:
            words[OP], words[OFFSET], words[SIZE], words[VALUE] = request
            words[TURN] += 1

        def get() -> int:
            while words[TURN] & 1:
                pass
            return words[VALUE]

        self.put, self.get = put, get
        return (array,)

    @classmethod
    def attach(cls, array: Any) -> Any:
        words = memoryview(array).cast("B").cast("Q")

        def get() -> Request:
            while not words[TURN] & 1:
                pass
            return words[OP], words[OFFSET], words[SIZE], words[VALUE]

        def put(value: int) -> None:
            words[VALUE] = value
            words[TURN] += 1

        return get, put

    def release(self) -> None:
        self._words.release()
