"""iceoryx2: request and response in shared memory, both sides polling.

iceoryx2 keeps a segment that all nodes of one configuration share, and leaves it in /dev/shm for the next
one. Each session has a configuration of its own, so every name is ours, and goes when the session does.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from shardio.bench.errors import BenchError
from shardio.bench.peers.peer import STOP, Peer, Server, Session, Wire


class Request(ctypes.Structure):
    """What an access is."""

    _fields_ = (
        ("op", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    )


class Reply(ctypes.Structure):
    """What it gave."""

    _fields_ = (("value", ctypes.c_uint64),)


SHARED_MEMORY = Path("/dev/shm")


START_S = 30.0


def _service(name: str, folder: str) -> tuple[Any, Any]:
    """A node and a service; each name begins with `name`, the files are in `folder`."""
    import iceoryx2

    iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
    config = iceoryx2.config.default()
    config.global_cfg.prefix = iceoryx2.FileName.new(f"{name}-")
    config.global_cfg.root_path = iceoryx2.Path.new(folder)
    node = iceoryx2.NodeBuilder.new().config(config).create(iceoryx2.ServiceType.Ipc)
    builder = node.service_builder(iceoryx2.ServiceName.new(name)).request_response(Request, Reply)
    return node, builder.open_or_create()


class IceoryxWire(Wire):
    """One client."""

    def __init__(self, cpu: int) -> None:
        self._name = f"shardio-bench-{os.getpid()}-{secrets.token_hex(4)}"
        self._folder = tempfile.mkdtemp(prefix=self._name)
        self._node, self._service = _service(self._name, self._folder)
        self._client: Any = self._service.client_builder().create()
        self._pending: Any = None
        super().__init__(serve, cpu, self._name, self._folder)
        self._await_server()

    def _await_server(self) -> None:
        deadline = time.monotonic() + START_S
        while self._service.dynamic_config.number_of_servers == 0:
            if time.monotonic() > deadline or not self.process.is_alive():
                self.process.kill()
                self.process.join()
                self._drop()
                raise BenchError("the iceoryx2 server does not start", "see its traceback above")
            os.sched_yield()

    def send(self, op: int, offset: int, size: int, value: int) -> None:
        """A copy of the request."""
        self._pending = self._client.send_copy(Request(op, offset, size, value))

    def receive(self) -> int:
        """Poll for the response."""
        receive = self._pending.receive
        while (response := receive()) is None:
            pass
        value: int = response.payload().contents.value
        return value

    def close(self) -> None:
        """End the server, drop the client and the node, remove what iceoryx2 leaves."""
        super().close()
        self._drop()

    def _drop(self) -> None:
        self._pending = None
        self._client.delete()
        self._client = self._service = self._node = None
        for path in SHARED_MEMORY.glob(f"{self._name}-*"):
            path.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)


class Iceoryx(Peer):
    """iceoryx2."""

    name, title, package = "iceoryx2", "iceoryx2, request-response, polling", "iceoryx2"

    def open(self, cpu: int) -> Session:
        """A server that polls for requests."""
        return IceoryxWire(cpu)


def serve(cpu: int, shared: Any, name: str, folder: str) -> None:
    """The server's main."""
    server = Server(cpu, shared)
    node, service = _service(name, folder)
    port = service.server_builder().create()
    while True:
        active = port.receive()
        if active is None:
            continue
        request = active.payload().contents
        if request.op == STOP:
            break
        active.send_copy(Reply(server.answer(request.op, request.offset, request.size, request.value)))
        active.delete()
    port.delete()
    del node
