"""iceoryx2: request and response in shared memory, both sides polling."""

import os
import tempfile
from typing import Any, cast

from shardio.bench.peers.iceoryx_service import Access, remove, service
from shardio.bench.peers.peer import Request, Wire


class Iceoryx(Wire):
    """One client."""

    name, title, package = "iceoryx2", "iceoryx2, request-response, polling", "iceoryx2"

    def connect(self) -> tuple[Any, ...]:
        self._folder = tempfile.mkdtemp(prefix=f"shardio-bench-{os.getpid()}-")
        self._held = service(self._folder)
        self._client = client = self._held[0].client_builder().create()
        pending: Any = None

        def put(request: Request) -> None:
            nonlocal pending
            pending = client.send_copy(Access(*request))

        def get() -> int:
            while (response := pending.receive()) is None:
                pass
            return int(response.payload().contents.value)
        self.put, self.get = put, get
        return (self._folder,)

    @classmethod
    def attach(cls, folder: str) -> Any:
        """A server; `put` answers the request that `get` has returned."""
        held, active = service(folder), cast("Any", None)
        port = held[0].server_builder().create()

        def get() -> Request:
            nonlocal active
            while (active := port.receive()) is None:
                pass
            access = active.payload().contents
            return access.op, access.offset, access.size, access.value

        def put(value: int) -> None:
            active.send_copy(Access(value=value))
            active.delete()

        return get, put

    def release(self) -> None:
        self._client.delete()
        del self._client, self._held
        remove(self._folder)
