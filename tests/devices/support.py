"""What device tests stand on: a bare `IoManager`, a host that records, and a loop whose time the test
moves.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

from shardio.interrupt import RecordingTrigger
from shardio.io_manager import IoManager
from shardio.range import MmioRange, PioRange


class ManualTimer:
    """What `ManualLoop.call_later` returns."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualLoop:
    """The timer part of an event loop; `advance()` moves its time and runs what is due."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self._serial = itertools.count()
        self._timers: list[tuple[float, int, ManualTimer]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], object]) -> ManualTimer:
        return self.call_later(0.0, callback)

    def call_later(self, delay: float, callback: Callable[[], object]) -> ManualTimer:
        timer = ManualTimer(callback)
        heapq.heappush(self._timers, (self.now + delay, next(self._serial), timer))
        return timer

    @property
    def pending(self) -> int:
        return sum(not timer.cancelled for _, _, timer in self._timers)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, due)
            if not timer.cancelled:
                timer.callback()
        self.now = end


class EveryDescriptor(dict[int, int]):
    """Hands every descriptor of this process over, under its own number."""

    def __contains__(self, number: object) -> bool:
        return True

    def __missing__(self, number: int) -> int:
        return number


class RecordingHost:
    """A `DeviceHost` that keeps what the device asked for. `pass_fds`: it hands over every descriptor."""

    def __init__(self, loop: Any = None, *, pass_fds: bool = False) -> None:
        self.name = "device-under-test"
        self.loop = loop if loop is not None else ManualLoop()
        self.trigger = RecordingTrigger()
        self.memory = None
        self.persistent = None
        self.ranges: tuple[PioRange | MmioRange, ...] = ()
        self.passed_fds: dict[int, int] = EveryDescriptor() if pass_fds else {}
        self.exits: list[int] = []
        self.resets = 0

    def exit(self, status: int) -> None:
        self.exits.append(status)

    def reset(self) -> None:
        self.resets += 1


class Ports:
    """A device on a bare `IoManager`, at port `base` and, where it answers memory, at `mmio`."""

    def __init__(self, device: Any, base: int, mmio: int | None = None) -> None:
        self.device = device
        self.base = base
        self.mmio = mmio
        self.manager = IoManager()
        if mmio is None:
            self.manager.register_pio(PioRange(base, device.pio_size), device)
        else:
            self.manager.register_mmio(MmioRange(mmio, device.mmio_size), device)

    def read(self, offset: int, size: int = 1) -> int:
        data = bytearray(size)
        if self.mmio is None:
            self.manager.pio_read(self.base + offset, data)
        else:
            self.manager.mmio_read(self.mmio + offset, data)
        return int.from_bytes(data, "little")

    def write(self, offset: int, value: int, size: int = 1) -> None:
        data = value.to_bytes(size, "little")
        if self.mmio is None:
            self.manager.pio_write(self.base + offset, data)
        else:
            self.manager.mmio_write(self.mmio + offset, data)
