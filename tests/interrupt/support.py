"""What the interrupt tests share: a shard's backend in front of a VMM in a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shardio.interrupt.proxy import ProxyBackend, call_over
from shardio.interrupt.server import InterruptServer


@contextmanager
def shard_of(server: InterruptServer) -> Iterator[ProxyBackend]:
    """The backend of a shard whose VMM answers by `server` until the shard closes its end."""
    shard_end, vmm_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def answer() -> None:
        while server.serve(vmm_end):
            pass
        server.close()

    thread = threading.Thread(target=answer)
    thread.start()
    proxy = ProxyBackend(call_over(shard_end))
    try:
        yield proxy
    finally:
        proxy.close()
        shard_end.close()
        thread.join()
        vmm_end.close()
