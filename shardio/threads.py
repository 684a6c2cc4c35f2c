"""Threads where the host may refuse one more, and closing what may make its closer wait."""

from __future__ import annotations

import os
import threading

from shardio.errors import HostError


def start(thread: threading.Thread) -> None:
    """Start a new thread. Raises `HostError` where there is no room for it."""
    try:
        thread.start()
    except RuntimeError as error:  # all that Python says of EAGAIN and ENOMEM
        hint = "raise the limits on processes and memory (ulimit -u, -v)"
        raise HostError(f"no thread {thread.name!r}: {error}", hint) from None


CLOSE_S = 0.01


def close_aside(*fds: int) -> None:
    """Close descriptors that another process has sent, in a thread that may wait for it: a socket with
    SO_LINGER does. Waits for that thread 10 ms at most.
    """
    if not fds:
        return
    closer = threading.Thread(target=_close, args=fds, name="shardio-closer", daemon=True)
    try:
        start(closer)
    except HostError:
        return  # they stay open: better than a supervisor that waits
    closer.join(CLOSE_S)


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)
