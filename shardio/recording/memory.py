"""Guest memory as a device reads it: recorded in its shard, and given again in a replay."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from shardio.recording.format import Event, What


class RecordedMemory:
    """The guest's `memory`, which tells `record` what the device reads: by `read`, or by `view`, of which it
    tells what is there when the view is made. Everything else is the memory's own.
    """

    def __init__(self, memory: Any, record: Callable[[Event], None]) -> None:
        self._memory = memory
        self._record = record

    def read(self, addr: int, length: int) -> bytes:
        """See `GuestMemory.read`."""
        data: bytes = self._memory.read(addr, length)
        self._record(Event(What.DMA, address=int(addr), width=length, data=data))
        return data

    def view(self, addr: int, length: int) -> memoryview:
        """See `GuestMemory.view`."""
        view: memoryview = self._memory.view(addr, length)
        self._record(Event(What.DMA, address=int(addr), width=length, data=bytes(view)))
        return view

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)


class ReplayedMemory:
    """Guest memory that holds what the recording says that the device has read there, between its last access
    and the end of the one in hand (`expected`). What it writes is dropped: what it reads of it afterwards is
    in the recording. `differs`: what it has read that is not in the recording, None: nothing.
    """

    def __init__(self) -> None:
        self.expected: deque[Event] = deque()
        self.differs: str | None = None

    def read(self, addr: int, length: int) -> bytes:
        """See `GuestMemory.read`; all-ones where the recording has nothing."""
        wanted = (int(addr), length)
        for skipped, event in enumerate(self.expected):
            if (event.address, event.width) == wanted:
                for _ in range(skipped + 1):  # it may read less than it did
                    self.expected.popleft()
                return event.data
        self.differs = self.differs or f"a read of {length} bytes of guest memory at {addr:#x}"
        return b"\xff" * length

    def write(self, addr: int, data: Any) -> None:
        """See `GuestMemory.write`."""

    def view(self, addr: int, length: int) -> memoryview:
        """See `GuestMemory.view`: a copy."""
        return memoryview(bytearray(self.read(addr, length)))
