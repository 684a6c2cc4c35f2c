"""What the VMM has to say to a process, in order, without ever waiting for room in its socket.

Facts. A shard that makes thousands of devices reads its socket between two of its messages only, and
meanwhile may wait for this end to answer it about an interrupt. A shard that is stopped reads nothing.

Consequences. What finds no room is kept, with duplicates of its descriptors, and sent by `flush`: whenever
the process has said something, and at every tick. The kept are bounded; beyond that the process has to be
ended.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections import deque
from collections.abc import Sequence

from shardio.shard import protocol

MOST_BYTES = 256 << 20
MOST_MESSAGES = 64 * 1024


class Outbox:
    """The messages for the process at the other end of `sock`, which stays the caller's."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._kept: deque[tuple[bytes, list[int]]] = deque()
        self._bytes = 0

    def send(self, message: protocol.ToShard, fds: Sequence[int] = ()) -> bool:
        """Send now, or later. False: too much waits already, and this is lost. Raises OSError when the peer
        is gone, `MachineError` for a message that is too long.
        """
        data = protocol.encode(message)
        if not self._kept:
            try:
                protocol.send_encoded(self._sock, data, fds, wait=False)
                return True
            except BlockingIOError:
                pass
        if len(self._kept) >= MOST_MESSAGES or self._bytes + len(data) > MOST_BYTES + protocol.MAX_MESSAGE:
            return False
        self._kept.append((data, [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0) for fd in fds]))
        self._bytes += len(data)
        return True

    def flush(self) -> bool:
        """Send what there is room for. False: sending fails, though the peer is there."""
        while self._kept:
            data, fds = self._kept[0]
            try:
                protocol.send_encoded(self._sock, data, fds, wait=False)
            except BlockingIOError:
                return True
            except (BrokenPipeError, ConnectionResetError):
                self.close()  # its death is noticed by its pidfd
                return True
            except OSError:
                return False
            self._drop_first()
        return True

    def close(self) -> None:
        """Forget what is kept. Idempotent."""
        while self._kept:
            self._drop_first()

    def _drop_first(self) -> None:
        data, fds = self._kept.popleft()
        self._bytes -= len(data)
        for fd in fds:
            os.close(fd)
