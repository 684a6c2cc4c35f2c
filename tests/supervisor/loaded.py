"""A module that knows when it was imported, and may refuse or kill whoever imports it: a file says which."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from shardio import MutDeviceMmio

ORDERS = "SHARDIO_TEST_IMPORT"
"""Environment variable: the path of a file that holds "raise", "die", or nothing."""
IMPORTED_NS = time.monotonic_ns()
IMPORTED = "SHARDIO_TEST_IMPORTED"
"""Environment variable: the path of a file that gets the pid of each process that imports this."""
_orders = Path(os.environ.get(ORDERS, "/nonexistent"))
_order = _orders.read_text() if _orders.exists() else ""

if IMPORTED in os.environ:
    with open(os.environ[IMPORTED], "a") as _imported:
        _imported.write(f"{os.getpid()}\n")
if _order == "raise":
    raise RuntimeError("ordered to")
if _order == "die":
    os.kill(os.getpid(), signal.SIGKILL)


class Age(MutDeviceMmio):
    """Reads give when its module was imported, in nanoseconds of CLOCK_MONOTONIC."""

    mmio_size = 0x100

    def read(self, offset: int, size: int) -> int:
        return IMPORTED_NS
