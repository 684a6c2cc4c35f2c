"""`EventStream`: what happens in a dispatcher, for whoever iterates over it in an event loop.

The supervisor's thread adds events and never waits: a stream that nobody reads keeps the newest ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from typing import Self

from shardio.supervisor.events import Event

KEPT = 4096
"""Events that a stream keeps for a reader that is slow; older ones are dropped and counted."""


class EventStream:
    """An asynchronous iterator over events, from its making on; ends when the dispatcher is closed.

    `lost`: how many events were dropped because nobody took them in time.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self._closed = False
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while True:
            with self._lock:
                if self._events:
                    return self._events.popleft()
                if self._closed:
                    raise StopAsyncIteration
                loop = asyncio.get_running_loop()
                future = loop.create_future()
                self._waiting = loop, future
            try:
                await future
            finally:
                with self._lock:
                    self._waiting = None

    async def aclose(self) -> None:
        """End the stream: no event is kept for it any more."""
        self.end()

    def put(self, event: Event) -> None:
        """Add an event; from any thread."""
        with self._lock:
            if self._closed:
                return
            self.lost += len(self._events) == KEPT
            self._events.append(event)
            self._wake()

    def end(self) -> None:
        """No event comes any more; from any thread."""
        with self._lock:
            self._closed = True
            self._wake()

    def _wake(self) -> None:
        if self._waiting is not None:
            loop, future = self._waiting
            self._waiting = None
            with contextlib.suppress(RuntimeError):  # its loop has been closed: nobody waits there
                loop.call_soon_threadsafe(_finish, future)


class Subscribers:
    """The streams of one dispatcher; one that is dropped is forgotten."""

    def __init__(self) -> None:
        self._streams: weakref.WeakSet[EventStream] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False

    def stream(self) -> EventStream:
        """One more."""
        stream = EventStream()
        with self._lock:
            self._streams.add(stream)
            if self._closed:
                stream.end()
        return stream

    def put(self, event: Event) -> None:
        """Tell all of them."""
        with self._lock:
            streams = tuple(self._streams)
        for stream in streams:
            stream.put(event)

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            self._closed = True
            streams = tuple(self._streams)
        for stream in streams:
            stream.end()


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
