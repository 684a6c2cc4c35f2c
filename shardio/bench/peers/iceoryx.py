"""iceoryx2: request and response in shared memory, both sides polling."""

from __future__ import annotations

import ctypes
import os
import secrets
from typing import Any

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


def _service(name: str) -> tuple[Any, Any]:
    import iceoryx2

    iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
    node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
    builder = node.service_builder(iceoryx2.ServiceName.new(name)).request_response(Request, Reply)
    return node, builder.open_or_create()


class IceoryxWire(Wire):
    """One client."""

    def __init__(self, cpu: int) -> None:
        name = f"shardio-bench-{os.getpid()}-{secrets.token_hex(4)}"
        self._node, self._service = _service(name)
        self._client: Any = self._service.client_builder().create()
        self._pending: Any = None
        super().__init__(serve, cpu, name)
        while self._service.dynamic_config.number_of_servers == 0:
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
        """End the server, drop the client and the node."""
        super().close()
        self._pending = None
        self._client.delete()
        self._client = self._service = self._node = None


class Iceoryx(Peer):
    """iceoryx2."""

    name, title, package = "iceoryx2", "iceoryx2, request-response, polling", "iceoryx2"

    def open(self, cpu: int) -> Session:
        """A server that polls for requests."""
        return IceoryxWire(cpu)


def serve(cpu: int, shared: Any, name: str) -> None:
    """The server's main."""
    server = Server(cpu, shared)
    node, service = _service(name)
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
