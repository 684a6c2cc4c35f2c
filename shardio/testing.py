"""For unit tests of devices: a host that keeps what a device asked for, a loop whose time the test moves, and
`replay`, which feeds a recording to a device.

>>> class Watchdog:
...     def attach(self, host):
...         self.host = host
...         host.loop.call_later(2.0, self.bark)
...     def bark(self):
...         self.host.trigger.trigger()
...         self.host.exit(3)
>>> host = FakeHost()
>>> Watchdog().attach(host)
>>> host.loop.advance(1.9)
>>> host.trigger.count, host.exits
(0, [])
>>> host.loop.advance(0.1)
>>> host.trigger.count, host.exits
(1, [3])
"""

from __future__ import annotations

import heapq
import itertools
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shardio.errors import RecordingError, ReplayDiffers
from shardio.interrupt import RecordingTrigger

if TYPE_CHECKING:
    from shardio.device import HostMemory, HostPersistent
    from shardio.range import MmioRange, PioRange


class ManualTimer:
    """What `ManualLoop.call_later` returns."""

    def __init__(self, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self._callback, self._arguments = callback, arguments
        self.cancelled = False

    def cancel(self) -> None:
        """It does not run any more."""
        self.cancelled = True

    def run(self) -> None:
        """What `ManualLoop.advance` does when it is due."""
        if not self.cancelled:
            self._callback(*self._arguments)


class ManualLoop:
    """The timers of an event loop, without waiting: `advance` moves its time and runs what is due."""

    def __init__(self, now: float = 1000.0) -> None:
        """`now`: what `time` says at first, in seconds."""
        self.now = now
        self._serial = itertools.count()
        self._timers: list[tuple[float, int, ManualTimer]] = []

    def time(self) -> float:
        """The loop's time, in seconds."""
        return self.now

    def call_soon(self, callback: Callable[..., object], *arguments: Any) -> ManualTimer:
        """Run it at the next `advance`."""
        return self.call_later(0.0, callback, *arguments)

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any) -> ManualTimer:
        """Run it once the time has moved by `delay` seconds."""
        return self.call_at(self.now + delay, callback, *arguments)

    def call_at(self, when: float, callback: Callable[..., object], *arguments: Any) -> ManualTimer:
        """Run it once the time is `when`."""
        timer = ManualTimer(callback, arguments)
        heapq.heappush(self._timers, (when, next(self._serial), timer))
        return timer

    @property
    def pending(self) -> int:
        """How many timers are still to run."""
        return sum(not timer.cancelled for _, _, timer in self._timers)

    def advance(self, seconds: float) -> None:
        """Move the time by `seconds`, and run what is due by then, in order."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, due)
            timer.run()
        self.now = end


class FakeHost:
    """A `DeviceHost` without a shard. `trigger` counts, `exits` and `resets` tell what was asked of the VMM.

    `loop`: a `ManualLoop` unless another one is given. What a test does not give, the device does not have:
    `memory` (a `GuestMemory` will do), `persistent`, `interrupts` and `ranges`; `doorbells` may be set.
    """

    def __init__(
        self,
        loop: Any = None,
        *,
        name: str = "device-under-test",
        memory: HostMemory | None = None,
        persistent: HostPersistent | None = None,
        interrupts: Any = None,
        ranges: Sequence[PioRange | MmioRange] = (),
        passed_fds: Mapping[int, int] | None = None,
    ) -> None:
        self.name = name
        self.loop = ManualLoop() if loop is None else loop
        self.trigger = RecordingTrigger()
        self.memory = memory
        self.persistent = persistent
        self.interrupts = interrupts
        self.ranges = tuple(ranges)
        self.passed_fds = {} if passed_fds is None else passed_fds
        self.doorbells: Sequence[Any] = ()
        self.exits: list[int] = []
        self.resets = 0

    def spawn(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start the helper; the test ends it."""
        return subprocess.Popen(argv, **options)

    def exit(self, status: int) -> None:
        """Keep the status in `exits`."""
        self.exits.append(status)

    def reset(self) -> None:
        """Count it in `resets`."""
        self.resets += 1


def replay(recording: str | os.PathLike[str], device: Any, *, name: str | None = None) -> int:
    """Feed a recording (`shardio record`, `Machine.record`) to a device, without a machine, and compare what
    it answers; returns how many accesses that were. A recording is a test so:

        def test_counter():
            assert shardio.testing.replay("run.rec", Counter) > 0

    `device`: the object, or its class or another function that makes it, which is called with the options of
    the recorded device. An object has one life alone: give the class of a device that was made again. `name`:
    which device of the recording it stands for; None: the one of the device's class, or the only one.

    Raises `ReplayDiffers`, an `AssertionError`, at the first access that goes another way; `RecordingError`
    for a file that is no recording, is damaged or cut off, or does not say which device is meant.
    """
    from shardio.recording.format import Life, load
    from shardio.recording.replay import device_named, replay_device

    factory = device if callable(device) else None
    loaded = load(recording)
    kind = device if isinstance(device, type) else type(device)
    which = name or device_named(loaded, f"{kind.__module__}:{kind.__qualname__}")
    lives = loaded.lives(which)
    if factory is None and len(lives) > 1:
        what = f"has {len(lives)} lives of device {which!r}"
        raise RecordingError(loaded.path, what, "give the class, which is made anew for each")

    def make(life: Life) -> Any:
        return device if factory is None else factory(**life.made.options)

    outcome = replay_device(lives, make)
    if outcome.difference is not None:
        raise ReplayDiffers(which, outcome.difference)
    return outcome.accesses
