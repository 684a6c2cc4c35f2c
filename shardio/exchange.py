"""`Exchange`: a server of one request and one reply a connection, which no client can hold up.

Facts. Whoever may connect may also send half a message, never read the answer, or open connections without
end.

Consequences. One thread serves all clients over sockets that do not block. A connection is one request and
one reply, and has `PATIENCE_S` seconds for each: then it is dropped, whatever it did with them. There are
`MOST_CLIENTS` at most; the next ones wait in the kernel. Nobody waits for the thread, but `close`, for a
bounded time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
import time
from abc import abstractmethod

from shardio.closing import Closing
from shardio.errors import ShardioError
from shardio.threads import start

PATIENCE_S = 5.0
MOST_CLIENTS = 16
CLOSE_S = 5.0
REST_S = 1.0
"""Before the next try to accept, where this process has no descriptor left."""


class _Client:
    """One connection: what it has sent, what it has still to be sent, and until when."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.deadline = time.monotonic() + PATIENCE_S
        self.received = bytearray()
        self.to_send = memoryview(b"")


class Exchange(Closing):
    """Serves `listener`, which is its own from now on, in a thread called `thread`, until `close`. A subclass
    says what a request and its reply are; `longest`: bytes that a request may have.
    """

    def __init__(self, listener: socket.socket, thread: str, longest: int) -> None:
        self._longest = longest
        self._pid = os.getpid()
        self._clients: dict[int, _Client] = {}
        self._closed = False
        self._resting_until = 0.0
        """No client is accepted before."""
        with contextlib.ExitStack() as undo:
            self._listener = undo.enter_context(listener)
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.callback(os.close, self._wake)
            self._selector = undo.enter_context(selectors.DefaultSelector())
            self._accepting = False
            self._selector.register(self._wake, selectors.EVENT_READ)
            self._thread = threading.Thread(target=self._serve, name=thread, daemon=True)
            start(self._thread)
            undo.pop_all()  # they are the thread's now

    def close(self) -> None:
        """No client is answered any more. Idempotent. In a fork it does nothing."""
        if os.getpid() != self._pid:
            return
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):  # the thread has failed, and closed it
                os.eventfd_write(self._wake, 1)
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSE_S)

    # ---- what a subclass says, in the thread ----

    def admits(self, connection: socket.socket) -> bool:
        """Whether a new connection is served; else it is closed at once."""
        return True

    @abstractmethod
    def request(self, received: bytearray) -> bytes | None:
        """The request, once it is whole. Raises `ShardioError` for what can be none."""

    @abstractmethod
    def reply(self, request: bytes) -> bytes:
        """The reply to a request. Raises `ShardioError` for what is refused."""

    @abstractmethod
    def refusal(self, error: ShardioError) -> bytes:
        """The reply that says so."""

    # ---- in the thread ----

    def _serve(self) -> None:
        try:
            while not self._closed:
                self._look()
        finally:
            for client in tuple(self._clients.values()):
                self._drop(client)
            self._selector.close()
            self._listener.close()
            os.close(self._wake)

    def _look(self) -> None:
        now = time.monotonic()
        times = [client.deadline for client in self._clients.values()]
        if now < self._resting_until:
            times.append(self._resting_until)
        self._listen(now >= self._resting_until and len(self._clients) < MOST_CLIENTS)
        for key, _ in self._selector.select(max(0.0, min(times) - now) if times else None):
            client = self._clients.get(key.fd)
            if client is not None:
                self._go_on(client)
            elif key.fd == self._listener.fileno():
                self._accept()
        now = time.monotonic()
        for client in tuple(self._clients.values()):
            if client.deadline <= now:
                self._drop(client)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:  # it has gone again, or there is no descriptor for it now
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EINTR):
                self._resting_until = time.monotonic() + REST_S
            return
        connection.setblocking(False)
        if not self.admits(connection):
            connection.close()
            return
        self._clients[connection.fileno()] = _Client(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def _listen(self, on: bool) -> None:
        if on and not self._accepting:
            self._selector.register(self._listener, selectors.EVENT_READ)
        elif self._accepting and not on:
            self._selector.unregister(self._listener)
        self._accepting = on

    def _go_on(self, client: _Client) -> None:
        try:
            if not client.to_send and not self._receive(client):
                return
            client.to_send = client.to_send[client.socket.send(client.to_send) :]
        except BlockingIOError:
            return
        except OSError:  # it is gone
            client.to_send = memoryview(b"")
        if not client.to_send:
            self._drop(client)

    def _receive(self, client: _Client) -> bool:
        """Whether there is a reply to send."""
        data = client.socket.recv(self._longest)
        if not data:
            raise ConnectionResetError
        client.received += data
        try:
            request = self.request(client.received)
            if request is None:
                return False
            reply = self.reply(request)
        except ShardioError as error:
            reply = self.refusal(error)
        client.to_send = memoryview(reply)
        client.deadline = time.monotonic() + PATIENCE_S
        self._selector.modify(client.socket, selectors.EVENT_WRITE)
        return True

    def _drop(self, client: _Client) -> None:
        del self._clients[client.socket.fileno()]
        self._selector.unregister(client.socket)
        client.socket.close()
