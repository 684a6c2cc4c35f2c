"""Full memory fences in other processes (membarrier(2), MEMBARRIER_CMD_GLOBAL_EXPEDITED).

Whoever goes to sleep, or changes the address map, fences the processes of all others, so that an access needs
no fence of its own. That holds for a fabric whose creator found the call allowed: each process that uses the
fabric must then be registered. Where the creator found it refused, each side of such a fabric fences for
itself (`fence_between` in native/doorbell.h).
"""

from __future__ import annotations

import os
from typing import Any

from shardio._core import lib
from shardio.errors import FabricError

HINT = "allow the system call membarrier (seccomp filters), as whoever made the fabric is allowed it"


def register(fabric: Any) -> None:
    """Register this process for the fences of a fabric (`struct sio_fabric *`) that is used with them.

    Raises `FabricError` where that is refused: others would take this process for one that they can fence.
    """
    if fabric.membarrier:
        _check(lib.sio_membarrier_register(), "this process cannot be registered for membarrier")


def fence() -> None:
    """A full fence in every registered process. Raises `FabricError` where it is refused."""
    _check(lib.sio_membarrier(), "other processes cannot be fenced with membarrier")


def _check(status: int, what: str) -> None:
    if status:
        raise FabricError(f"{what}: {os.strerror(-status)}", HINT)
