"""`ControlServer`: answers `shardio ls`, `top`, `pause`, `resume` and `stop` in the machine's process.

Facts. Whoever runs as the same user, or as root, may connect; so may a client that sends half a message, or
never reads its answer. A machine that starts or stops has its turn taken for as long as that lasts.

Consequences. One thread serves all clients over sockets that do not block. A connection is one request and
one reply, and has `PATIENCE_S` seconds for each: then it is dropped, whatever it did with them. There are
`MOST_CLIENTS` at most; the next ones wait in the kernel. The thread waits for a turn of the machine a bounded
time, and a client hears that it is busy. Nobody waits for the thread, but `close`, for a bounded time too.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

from shardio.closing import Closing
from shardio.control import messages
from shardio.control.messages import HEADER, LONGEST_REQUEST, Done, Refused, Reply, Status
from shardio.dispatcher.life import Life, State
from shardio.dispatcher.statistics import MachineStatistics
from shardio.errors import MachineError, ShardioError
from shardio.threads import start
from shardio.vcpu import VcpuState

PATIENCE_S = 5.0
MOST_CLIENTS = 16
TURN_S = 1.0
"""How long a client's request waits for a turn of the machine."""
CLOSE_S = 5.0
REST_S = 1.0
"""Before the next try to accept, where this process has no descriptor left."""

log = logging.getLogger("shardio.control")


class Controlled(Protocol):
    """The machine: `shardio.Machine`."""

    def pause(self, timeout: float = ...) -> None:
        """Park its vCPUs."""

    def resume(self, timeout: float = ...) -> None:
        """Let them run."""

    def stop(self) -> None:
        """End it."""

    def statistics(self) -> MachineStatistics:
        """What it has done so far."""


class _Client:
    """One connection: what it has sent, what it has still to be sent, and until when."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.deadline = time.monotonic() + PATIENCE_S
        self.received = bytearray()
        self.to_send = memoryview(b"")

    def request(self) -> bytes | None:
        """The message, once it is whole. Raises `MachineError` for one that is too long."""
        if len(self.received) < HEADER.size:
            return None
        (length,) = HEADER.unpack_from(self.received)
        if length > LONGEST_REQUEST:
            raise MachineError(f"a request of {length} bytes", f"send {LONGEST_REQUEST} at most")
        body = bytes(self.received[HEADER.size : HEADER.size + length])
        return body if len(body) == length else None


class ControlServer(Closing):
    """The control socket of a machine, called `name`, from now until `close`.

    `stop`: what a client's stop does, and must not wait for this thread (None: the machine's `stop`). Raises
    `MachineError` for a name that cannot be, or that another machine of this process has.
    """

    def __init__(
        self, machine: Controlled, life: Life, name: str, stop: Callable[[], None] | None = None
    ) -> None:
        self.name = name
        self._machine, self._life = machine, life
        self._stop = stop
        self._clients: dict[int, _Client] = {}
        self._closed = False
        self._resting_until = 0.0
        """No client is accepted before."""
        with contextlib.ExitStack() as undo:
            self._listener = undo.enter_context(_listening(name))
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.callback(os.close, self._wake)
            self._selector = undo.enter_context(selectors.DefaultSelector())
            self._accepting = False
            self._selector.register(self._wake, selectors.EVENT_READ)
            self._thread = threading.Thread(target=self._serve, name="shardio-control", daemon=True)
            start(self._thread)
            undo.pop_all()  # they are the thread's now

    def close(self) -> None:
        """No client is answered any more. Idempotent. In a fork it does nothing."""
        if self._life.forked:
            return
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):  # the thread has failed, and closed it
                os.eventfd_write(self._wake, 1)
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSE_S)

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
        if not messages.trusted(messages.peer(connection)[1]):
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
        data = client.socket.recv(HEADER.size + LONGEST_REQUEST)
        if not data:
            raise ConnectionResetError
        client.received += data
        try:
            body = client.request()
            if body is None:
                return False
            reply = self._reply(body)
        except ShardioError as error:
            reply = Refused(error.message, error.hint)
        client.to_send = memoryview(messages.packed(reply))
        client.deadline = time.monotonic() + PATIENCE_S
        self._selector.modify(client.socket, selectors.EVENT_WRITE)
        return True

    def _drop(self, client: _Client) -> None:
        del self._clients[client.socket.fileno()]
        self._selector.unregister(client.socket)
        client.socket.close()

    def _reply(self, body: bytes) -> Reply:
        command = messages.unpacked_request(body).command
        try:
            match command:
                case "status":
                    return self._status()
                case "pause":
                    with self._life.turn_within(TURN_S):
                        self._machine.pause(PATIENCE_S)
                case "resume":
                    with self._life.turn_within(TURN_S):
                        self._machine.resume(PATIENCE_S)
                case "stop" if self._stop is not None:
                    self._stop()
                case "stop":
                    with self._life.turn_within(TURN_S):
                        self._machine.stop()
        except ShardioError:
            raise
        except Exception as error:
            log.exception("the machine could not be asked to %s", command)
            what = f"it failed: {type(error).__name__}: {error}"
            raise MachineError(what, "see the machine's log") from None
        return Done()

    def _status(self) -> Status:
        state = self._life.state
        statistics = MachineStatistics((), (), ())
        if state in (State.RUNNING, State.STOPPED):
            with self._life.turn_within(TURN_S):
                statistics, state = self._machine.statistics(), self._life.state
        paused = any(vcpu.state is VcpuState.PAUSED for vcpu in statistics.vcpus)
        return Status(
            self.name,
            os.getpid(),
            "paused" if state is State.RUNNING and paused else state.name.lower(),
            time.monotonic_ns(),
            self._life.exit,
            statistics,
        )


def _listening(name: str) -> socket.socket:
    address = messages.address(os.getpid(), name)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listener.bind(address)
        listener.listen(MOST_CLIENTS)
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise MachineError(
            f"this process has a machine called {name} already", "give this one another name"
        ) from None
    return listener
