"""A warm Python interpreter that waits to be told which shard it is.

Starting Python and importing what a shard needs takes over 100 ms; a machine keeps one interpreter that has
done so. Measured from a shard's kill to its successor's first access: 35 ms (median of 8, 24 to 52).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys

from shardio.errors import ShardError
from shardio.shard import protocol

_MAIN = "import sys; sys.path[:] = {path!r}; from shardio.shard.process import main; main({arguments})"


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

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL, unless it is dead already (a program that waits for any child may have reaped it)."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> int | None:
        """Collect it if it is dead: its return code (negative: a signal), else None. Closes its descriptors.
        """
        code = self._process.poll()
        if code is not None:
            os.close(self.pidfd)
            self.control.close()
            self.interrupts.close()
        return code
