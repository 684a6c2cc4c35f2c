"""What a shard's Python code adds to its trace ring: interrupts that devices raise."""

from __future__ import annotations

from typing import Any

from shardio._core import ffi, lib


class OwnerTrace:
    """The trace of one owner. `on[0]`: whether the VMM traces, for callers who spare themselves the rest."""

    __slots__ = ("_owner", "_segment", "on")

    def __init__(self, owner: Any, segment: Any) -> None:
        """`owner`: the core's struct; `segment`: what keeps mapped what it points to."""
        self._owner = owner
        self._segment = segment
        word = ffi.addressof(segment.shard[owner.shard], "traced")
        self.on = memoryview(ffi.buffer(word, 4)).cast("I")

    def line(self, gsi: int, high: bool) -> None:
        """An interrupt is raised, or (`high` False) lowered."""
        if self.on[0]:
            lib.sio_trace_line(self._owner, gsi, high)
