"""The VMM's end of a template of shards (`shardio.shard.template`): where many start, each is a fork.

It lives while a machine starts. Where it cannot fork, shards are started one by one, as without it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Sequence

PATIENCE_S = 10.0
"""How long a fork may take (the first one, until the template has started); then it is given up."""


class Sibling:
    """A child of this process that it has not started itself, with the part of `subprocess.Popen` that is
    asked of shards.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._returncode: int | None = None

    def poll(self) -> int | None:
        """See `Popen.poll`: its return code once it is dead; 0 where a program that waits for any child has
        reaped it.
        """
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        """See `Popen.wait`."""
        return self._wait(0)

    def _wait(self, options: int) -> int | None:
        if self._returncode is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:
                self._returncode = 0
            else:
                if pid:
                    self._returncode = os.waitstatus_to_exitcode(status)
        return self._returncode


class Template:
    """A process that forks shards. `start(arguments, descriptors)`: starts it. Raises OSError."""

    def __init__(self, start: Callable[[str, Sequence[int]], subprocess.Popen[bytes]]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = start(f"{theirs.fileno()}, {os.getpid()}", (theirs.fileno(),))
            except BaseException:
                self._control.close()
                raise
        self._control.settimeout(PATIENCE_S)

    def fork(self, fds: Sequence[int]) -> Sibling | None:
        """A new interpreter that has these descriptors, for `shardio.shard.process.main`; None where there is
        none to be had, now and later. Whoever may have been forked all the same ends when their other ends
        are closed.
        """
        with contextlib.suppress(OSError, ValueError):
            socket.send_fds(self._control, [b"fork"], fds)
            if (pid := int(self._control.recv(32))) > 0:
                return Sibling(pid)
        self.close()
        return None

    def close(self) -> None:
        """End the process; what it has forked lives on. Idempotent."""
        self._control.close()
        self._process.kill()
        self._process.wait()
