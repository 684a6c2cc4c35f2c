"""Threads where the host may refuse one more."""

from __future__ import annotations

import threading

from shardio.errors import HostError


def start(thread: threading.Thread) -> None:
    """Start a new thread. Raises `HostError` where there is no room for it."""
    try:
        thread.start()
    except RuntimeError as error:  # all that Python says of EAGAIN and ENOMEM
        cure = "raise the limits on processes and memory (ulimit -u, -v)"
        raise HostError(f"no thread {thread.name!r}: {error}", cure) from None
