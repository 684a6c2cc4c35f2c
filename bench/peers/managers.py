"""`multiprocessing.managers`: a proxy of the device object, a method call an access."""

from __future__ import annotations

import threading
from multiprocessing.managers import BaseManager
from typing import Any

from shardio.bench.peers.peer import ECHO, LINE_WORDS, Peer, Server, Session, context, line_in, settle


class _Manager(BaseManager):
    """Serves one `Server`."""


class _ManagedServer(Server):
    """The server, with the words that the manager's process was started with: they travel only then."""

    words: Any = None

    def __init__(self, cpu: int) -> None:
        super().__init__(cpu, _ManagedServer.words)


def _keep(shared: Any, cpu: int) -> None:
    """In the manager's process, before its threads are made: they inherit where it runs."""
    settle(cpu)
    _ManagedServer.words = shared


_Manager.register("Server", _ManagedServer)


class ManagerSession(Session):
    """Calls through the proxy; pings are answered in a thread of the manager's process, as calls are."""

    def __init__(self, cpu: int) -> None:
        self._shared: Any = context.RawArray("Q", LINE_WORDS)
        self.line = line_in(self._shared)
        manager: Any = _Manager(ctx=context)
        self._manager: Any = manager
        manager.start(initializer=_keep, initargs=(self._shared, cpu))
        self._server: Any = manager.Server(cpu)
        self._echo: threading.Thread | None = None

    def call(self, op: int, offset: int, size: int, value: int) -> int:
        """A method call."""
        result: int = self._server.answer(op, offset, size, value)
        return result

    def echo(self, n: int) -> None:
        """The call blocks until the last ping: it is made in a thread."""
        self._echo = threading.Thread(target=self._server.answer, args=(ECHO, 0, 0, n))
        self._echo.start()

    def echoed(self) -> None:
        """The thread has ended."""
        assert self._echo is not None
        self._echo.join()

    def close(self) -> None:
        """End the manager's process."""
        self._server = self._echo = None
        self._manager.shutdown()
        self._manager = None


class Manager(Peer):
    """multiprocessing.Manager."""

    name, title = "manager", "multiprocessing.Manager, a proxy"

    def open(self, cpu: int) -> Session:
        """A manager that holds the device."""
        return ManagerSession(cpu)
