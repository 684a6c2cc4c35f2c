"""One process of a free-threaded Python: vCPU threads that share an `IoManager` without a GIL, a lock
around the device. As `one_process`, it is measured with one vCPU.
"""

from __future__ import annotations

from shardio.bench.peers.interpreter import Interpreter
from shardio.bench.peers.other_python import OtherPython


class FreeThreaded(OtherPython):
    """Threads without a GIL."""

    name, title = "free-threaded", "one process, an IoManager without a GIL (1 vCPU)"
    kind, needs = "threads", "free-threaded Python (3.13t or later)"

    @classmethod
    def fits(cls, interpreter: Interpreter) -> bool:
        """PEP 703, and the GIL is off."""
        return not interpreter.gil
