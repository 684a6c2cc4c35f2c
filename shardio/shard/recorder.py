"""Records one device, in its shard.

Facts. A recording must have every access, in the order in which the device met them, or its replay differs
where the device does not. A ring that is written over is no place for it. The recorded device pays for that:
it is called from Python, and a system call takes some microseconds.

Consequences. Each access goes through here, between the shard's loop and the device, into a list, which goes
to the file when it is long, and 20 ms later at the latest. A shard that is killed takes the rest with it, and
its successor's device begins a new life in the recording.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from shardio.address import Space
from shardio.device import view_handlers
from shardio.recording.format import Event, Events, Frame, Made, Moved, Span, What, append
from shardio.recording.memory import RecordedMemory

if TYPE_CHECKING:
    import asyncio

    from shardio.persistent import Persistent
    from shardio.shard.protocol import DeviceSpec, RangeSpec

MOST = 512
"""Events in one frame."""
LATE_S = 0.02

log = logging.getLogger("shardio.recording")


class Recorder:
    """Records the device of this name into the file behind `fd`, which becomes this object's."""

    def __init__(self, fd: int, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._fd = fd
        self._name = name
        self._loop = loop
        self._events: list[Event] = []
        self._written = 0
        self._timer: asyncio.TimerHandle | None = None
        self._failed = False

    def begin(self, device: Any, spec: DeviceSpec, persistent: Persistent | None, memory: Any) -> Any:
        """The device is made, and has met nothing yet. Returns the guest memory that it is to be given."""
        kind = type(device)
        options = pickle.loads(spec.device.options)
        dma = memory is not None and bool(getattr(device, "record_dma", False))
        state = None if persistent is None else persistent.state
        name = f"{kind.__module__}:{kind.__qualname__}"
        self._append(Made(self._name, name, _plain(options), _spans(spec.ranges), state, dma))
        return RecordedMemory(memory, self.record) if dma else memory

    def moved(self, spans: Sequence[RangeSpec]) -> None:
        """The device answers at these ranges from now on."""
        self.flush()
        self._append(Moved(self._name, _spans(spans)))

    def record(self, event: Event) -> None:
        """Add what the device has met."""
        self._events.append(event)
        if len(self._events) >= MOST:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(LATE_S, self.flush)

    def rung(self, index: int) -> None:
        """A doorbell of the device was rung."""
        self.record(Event(What.DOORBELL, value=index))

    def flush(self) -> None:
        """Write down what has come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._events:
            events, self._events = self._events, []
            self._append(Events(self._name, self._written, events))
            self._written += len(events)

    def close(self) -> None:
        """Write the rest, and close the file."""
        self.flush()
        os.close(self._fd)

    def handlers(self, device: Any, space: str) -> Any:
        """The device's view handlers of a space, recorded. Raises `InvalidDevice`."""
        recorded = _Recorded(view_handlers(device, space), space, self.record)
        recorded.guards_itself = getattr(device, "guards_itself", False)  # see `Persistent.guard`
        return recorded

    def manager(self, manager: Any, space: str) -> Any:
        """The same of a `PioManager` or `MmioManager`, which is asked by address."""
        return _RecordedManager(manager, space, self.record)

    def _append(self, frame: Frame) -> None:
        if self._failed:
            return
        try:
            append(self._fd, frame)
        except OSError as error:
            self._failed = True  # the recording lacks what comes: it says so where it is read
            log.error("device %s is recorded no more: %s", self._name, error.strerror)


class _Recorded:
    """View handlers with a `record` of each access."""

    guards_itself = False

    def __init__(self, device: Any, space: str, record: Callable[[Event], None]) -> None:
        read, write = getattr(device, f"{space}_read"), getattr(device, f"{space}_write")
        number = int(Space(space) is Space.MMIO)

        def recorded_read(base: int, offset: int, data: memoryview) -> None:
            failed = True
            try:
                read(base, offset, data)
                failed = False
            finally:
                value = 0 if failed else int.from_bytes(data, "little")
                record(Event(What.READ, number, int(base) + int(offset), len(data), value, failed))

        def recorded_write(base: int, offset: int, data: memoryview) -> None:
            value, failed = int.from_bytes(data, "little"), True
            try:
                write(base, offset, data)
                failed = False
            finally:
                record(Event(What.WRITE, number, int(base) + int(offset), len(data), value, failed))

        setattr(self, f"{space}_read", recorded_read)
        setattr(self, f"{space}_write", recorded_write)


class _RecordedManager:
    def __init__(self, manager: Any, space: str, record: Callable[[Event], None]) -> None:
        class _ByAddress:
            """The manager's calls as a device's, with 0 for the base."""

        device: Any = _ByAddress()
        for direction in ("read", "write"):
            call = getattr(manager, f"{space}_{direction}")
            setattr(device, f"{space}_{direction}", _without_base(call))
        recorded = _Recorded(device, space, record)
        for direction in ("read", "write"):
            inner = getattr(recorded, f"{space}_{direction}")
            setattr(self, f"{space}_{direction}", lambda address, data, inner=inner: inner(0, address, data))


def _without_base(call: Callable[[int, memoryview], None]) -> Callable[[int, int, memoryview], None]:
    return lambda _base, address, data: call(address, data)


def _spans(spans: Sequence[RangeSpec]) -> list[Span]:
    return [Span(int(span.space == Space.MMIO), span.base, span.size) for span in spans]


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options that can be told outside of this program."""
    found = {}
    for name, value in options.items():
        try:
            found[name] = msgspec.msgpack.decode(msgspec.msgpack.encode(value))
        except (TypeError, ValueError, OverflowError):
            continue
    return found
