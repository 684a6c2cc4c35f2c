"""Feeds a recording to a device, in a bare `IoManager`, and compares its answers.

The device's host has no machine behind it: its time stands still, its interrupts go nowhere, and guest memory
is what the recording says that the device has read. A device whose answers come from anything else, the time
of day say, or what somebody typed, differs from its recording.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import Any, cast

import msgspec

from shardio.address import Space
from shardio.device import declared_memory
from shardio.errors import RecordingError
from shardio.interrupt.manager import InterruptManager
from shardio.interrupt.recording import RecordingBackend
from shardio.io_manager import IoManager, MmioManager, PioManager
from shardio.persistent import Journal, Persistent, persistent_memory
from shardio.range import MmioRange, PioRange
from shardio.recording.format import Event, Life, Made, Moved, Recording, Span, What
from shardio.recording.memory import ReplayedMemory
from shardio.testing import FakeHost, ManualLoop

SPACES = ("pio", "mmio")


class Difference(msgspec.Struct, frozen=True):
    """The first access that went another way: its `index` among the device's accesses, from 0; what was
    `expected` and what `got`: the value of a read, "failed", or what else it was.
    """

    index: int
    space: str
    address: int
    width: int
    write: bool
    value: int
    expected: str
    got: str

    def __str__(self) -> str:
        access = f"write of {self.value:#x}" if self.write else "read"
        return (
            f"access {self.index}: {self.width}-byte {access} at {self.space} {self.address:#x}: expected "
            f"{self.expected}, got {self.got}"
        )


class Outcome(msgspec.Struct, frozen=True):
    """How a replay went: how many accesses were made, and where the device first differed."""

    accesses: int
    difference: Difference | None


class Trigger:
    """An interrupt of any kind, which goes nowhere."""

    def trigger(self) -> None:
        """Raise it."""

    def deassert(self) -> None:
        """Lower it."""

    def set_level(self, active: bool) -> None:
        """Make it high or low."""


class Loop(ManualLoop):
    """An event loop whose time stands still and whose descriptors are never ready."""

    def add_reader(self, _fd: Any, _callback: Any, *_arguments: Any) -> None:
        """Nothing: it is never ready."""

    add_writer = add_reader

    def remove_reader(self, _fd: Any) -> bool:
        """Nothing."""
        return False

    remove_writer = remove_reader


def replay_device(lives: Sequence[Life], make: Callable[[Life], Any]) -> Outcome:
    """Replay each life of a device with the device that `make` gives for it. Stops at the first difference.

    Raises what the device's `attach` raises.
    """
    done = 0
    with ExitStack() as last:
        kept = _Kept(last)
        for life in lives:
            with ExitStack() as stack:
                player = _Player(life, make(life), kept, stack)
                difference = player.play(done)
            done += player.accesses
            if difference is not None:
                return Outcome(done, difference)
    return Outcome(done, None)


def device_named(recording: Recording, kind: str) -> str:
    """The name of the recorded device of type `kind` ("module:Class"), or of the only one.

    Raises `RecordingError` where that is not one.
    """
    of_kind = [name for name, lives in recording.devices.items() if lives[0].made.kind == kind]
    found = of_kind or list(recording.devices)
    if len(found) != 1:
        names = ", ".join(sorted(found)) or "none"  # they were recorded in whatever order they were made
        what = f"has {len(found)} devices that {kind} may stand for"
        raise RecordingError(recording.path, what, f"name the one that is meant: {names}")
    return found[0]


class _Kept:
    """The memory that all lives of a device share, where its class declares some."""

    def __init__(self, last: ExitStack) -> None:
        self._last = last
        self._fd = -1

    def store(
        self, device: Any, made: Made, journal: Journal, stack: ExitStack
    ) -> Persistent | None:
        """For a life that finds the state of its recording, if there was one; closed with `stack`."""
        state, area = declared_memory(type(device), made.options)
        if not state and not area:
            return None
        if self._fd < 0:
            self._fd = persistent_memory(state, area)
            self._last.callback(os.close, self._fd)
        if made.state is not None:
            with closing(Persistent(self._fd, state, journal.control_at, area=area)) as before:
                before.save(made.state)
        return stack.enter_context(closing(Persistent(self._fd, state, journal.control_at, area=area)))


class _Player:
    """One life of a device, played to an object."""

    def __init__(self, life: Life, device: Any, kept: _Kept, stack: ExitStack) -> None:
        self.accesses = 0
        """How many it has made that went as they should."""
        self._device = device
        self._memory = ReplayedMemory()
        self._events = deque(life.events)
        made = life.made
        loop = self._loop = Loop()
        spans = list(map(_span, made.spans))
        self._journal = Journal()
        store = self._store = kept.store(device, made, self._journal, stack)
        host = FakeHost(
            loop,
            name=made.device,
            memory=self._memory if made.dma else None,
            persistent=store,
            interrupts=InterruptManager(stack.enter_context(RecordingBackend()), cast(Any, loop)),
            ranges=spans,
        )
        host.trigger = cast(Any, Trigger())
        self._keep = getattr(device, "keep", None)
        if store is not None and self._keep is None and hasattr(device, "state_type"):
            self._keep = store.keeper(device)
        self._prefetch()
        if (attach := getattr(device, "attach", None)) is not None:
            attach(host)
        self._place(spans)

    def play(self, before: int) -> Difference | None:
        """Where the device differs, if it does. `before`: accesses of its earlier lives."""
        memory, loop = self._memory, self._loop
        while self._events:
            event = self._events.popleft()
            if isinstance(event, Moved):
                self._place(list(map(_span, event.spans)))
            elif event.what == What.DMA:
                memory.expected.append(event)
            elif event.what == What.DOORBELL:
                self._prefetch()
                self._device.doorbell(event.value)
            else:
                if (got := self._access(event)) is not None:
                    expected = _told(event.what, event.value, event.failed)
                    return Difference(
                        before + self.accesses, SPACES[event.space & 1], event.address, event.width,
                        event.what == What.WRITE, event.value, expected, got,
                    )  # fmt: skip
                self.accesses += 1
                memory.expected.clear()
                if loop.pending:
                    loop.advance(0.0)  # what it has put off until after the access
        return None

    def _prefetch(self) -> None:
        """What the device reads next, it may read before its next access."""
        while self._events and isinstance(event := self._events[0], Event) and event.what == What.DMA:
            self._memory.expected.append(event)
            self._events.popleft()

    def _access(self, event: Event) -> str | None:
        """Make it; what came of it, None: the same as then."""
        self._journal.name(self.accesses + 1)
        data = bytearray(event.width)
        if event.what == What.WRITE:
            data[:] = event.value.to_bytes(event.width, "little")
        try:
            self._calls[event.space & 1][event.what](event.address, data)
        except Exception as error:
            got = None if event.failed else f"failed ({type(error).__name__}: {error})"
        else:
            value = int.from_bytes(data, "little")
            same = value == event.value and not event.failed
            got = None if same else _told(event.what, value, False)
        return self._memory.differs or got

    def _place(self, spans: list[PioRange | MmioRange]) -> None:
        """The device answers there, and nowhere else. A device that is a manager does so by itself."""
        manager = IoManager()
        for span in spans:
            handlers_for = getattr(self._device, "handlers_for", None)
            answering = self._device if handlers_for is None else handlers_for(span)
            if self._store is not None:
                space = Space.PIO if isinstance(span, PioRange) else Space.MMIO
                answering = self._store.guard(answering, space, getattr(answering, "keep", self._keep))
            if isinstance(span, PioRange) and not isinstance(self._device, PioManager):
                manager.register_pio(span, answering)
            elif isinstance(span, MmioRange) and not isinstance(self._device, MmioManager):
                manager.register_mmio(span, answering)
        pio: Any = self._device if isinstance(self._device, PioManager) else manager
        mmio: Any = self._device if isinstance(self._device, MmioManager) else manager
        self._calls = ((pio.pio_read, pio.pio_write), (mmio.mmio_read, mmio.mmio_write))


def _told(what: int, value: int, failed: bool) -> str:
    if failed:
        return "failed"
    return "done" if what == What.WRITE else f"{value:#x}"


def _span(span: Span) -> PioRange | MmioRange:
    return (MmioRange if span.space else PioRange)(span.base, span.size)
