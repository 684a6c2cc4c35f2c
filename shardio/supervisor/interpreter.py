"""A Python interpreter that waits to be told which shard it is: see `shardio.shard.spare`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable

from shardio.errors import ShardError
from shardio.shard import protocol

PREPARE_BYTES = 64 * 1024
"""Of factories that one message names; what does not fit is loaded when it is needed."""
_MAIN = """import gc, sys
gc.disable()
sys.path[:] = {path!r}
from shardio.shard.process import main
main({arguments})"""


class Interpreter:
    """A process with its control and interrupt sockets. It dies with the thread that made it."""

    def __init__(self, stdin: int | None) -> None:
        """`stdin`: the descriptor that becomes its standard input (None: /dev/null).

        Raises `ShardError` when no process can be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        lines, their_lines = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = f"{theirs.fileno()}, {their_lines.fileno()}, {os.getpid()}"
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _MAIN.format(path=sys.path, arguments=arguments)],
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                pass_fds=(theirs.fileno(), their_lines.fileno()),
            )
            self.pidfd = os.pidfd_open(self._process.pid)
        except OSError as error:
            ours.close()
            lines.close()
            raise ShardError(
                "interpreter", f"cannot be started: {error}", "raise the limits on processes and files"
            ) from None
        finally:
            theirs.close()
            their_lines.close()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * protocol.MAX_MESSAGE)
        self.control, self.interrupts = ours, lines
        self._loaded: set[bytes] = set()
        self._prepared = False

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def prepare(self, fabric_fd: int, factories: Iterable[bytes]) -> None:
        """Have it attach the fabric and load the factories (`Packed.factory`) that it was not told of yet.

        Never waits: what an interpreter that does not listen is not told, it loads when it is needed.
        """
        new: list[bytes] = []
        size = 0
        for factory in factories:
            if factory not in self._loaded and size + len(factory) <= PREPARE_BYTES:
                new.append(factory)
                size += len(factory)
        if self._prepared and not new:
            return
        message = protocol.Prepare(sys.path, new)
        with contextlib.suppress(OSError):
            protocol.send(self.control, message, () if self._prepared else (fabric_fd,), wait=False)
            self._prepared = True
            self._loaded.update(new)

    def kill(self) -> None:
        """SIGKILL, unless it is dead already (a program that waits for any child may have reaped it)."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> int | None:
        """Collect it if it is dead: its return code (negative: a signal), else None."""
        return self._process.poll()

    def close(self) -> None:
        """Close its descriptors; it must be reaped, and nobody may wait for them any more."""
        os.close(self.pidfd)
        self.control.close()
        self.interrupts.close()
