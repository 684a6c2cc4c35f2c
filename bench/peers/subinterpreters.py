"""One process, the device's owner a subinterpreter with a GIL of its own (Python 3.12 or later): one
interpreter per shard without a process per shard.
"""

from __future__ import annotations

from shardio.bench.peers.interpreter import Interpreter
from shardio.bench.peers.other_python import OtherPython


class Subinterpreters(OtherPython):
    """Subinterpreters."""

    name, title = "subinterpreters", "one process, a subinterpreter with its own GIL, busy wait"
    kind, needs = "subinterpreter", "CPython 3.12 or later, whose subinterpreters have a GIL each,"

    @classmethod
    def fits(cls, interpreter: Interpreter) -> bool:
        """PEP 684."""
        return interpreter.implementation == "cpython" and interpreter.version >= (3, 12)
