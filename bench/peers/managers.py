"""`multiprocessing.managers`: a proxy of the device object, a method call an access."""

from __future__ import annotations

import threading
from multiprocessing.managers import BaseManager
from typing import Any

from shardio.bench.peers.peer import ECHO, LINE_WORDS, Server, Session, context, line_in, settle


class _Manager(BaseManager):
    """Serves one `Server`, with the words that its process was started with: they travel only then."""

    words: Any = None


def _keep(shared: Any, cpu: int) -> None:
    """In the manager's process, before its threads are made: they inherit where it runs."""
    settle(cpu)
    _Manager.words = shared


def _server(cpu: int) -> Server:
    return Server(cpu, _Manager.words)


_Manager.register("Server", _server)


class Manager(Session):
    """Calls through the proxy; pings are answered in a thread of the manager's process, as calls are."""

    name, title = "manager", "multiprocessing.Manager, a proxy"

    def __init__(self, cpu: int) -> None:
        self._shared: Any = context.RawArray("Q", LINE_WORDS)
        self.line = line_in(self._shared)
        manager: Any = _Manager(ctx=context)
        manager.start(initializer=_keep, initargs=(self._shared, cpu))
        self._manager, self._server = manager, manager.Server(cpu)

    def call(self, op: int, offset: int, size: int, value: int) -> int:
        return int(self._server.answer(op, offset, size, value))

    def echo(self, n: int, pause: int) -> None:
        """The call blocks until the last ping: it is made in a thread."""
        self._echo = threading.Thread(target=self._server.answer, args=(ECHO, 0, pause, n))
        self._echo.start()

    def echoed(self) -> None:
        self._echo.join()

    def close(self) -> None:
        manager, self._manager, self._server = self._manager, None, None
        manager.shutdown()
