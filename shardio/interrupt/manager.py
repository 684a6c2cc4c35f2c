"""`InterruptManager`: where a device asks for interrupts, at start or at run time, whatever backend is
behind it.

One manager per owner (a shard, or a unit test). Device code sees this, `Interrupt` and `InterruptGroup`,
and nothing of the hypervisor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from shardio.closing import Closing
from shardio.interrupt.backend import InterruptBackend
from shardio.interrupt.config import LegacyConfig, MsiConfig
from shardio.interrupt.counts import Counts
from shardio.interrupt.interrupt import EdgeInterrupt, Interrupt, LevelInterrupt, level_interrupt

if TYPE_CHECKING:
    import asyncio

    from shardio.interrupt.doorbell import DoorbellDevice, DoorbellSet
    from shardio.interrupt.group import InterruptGroup

_AnyInterrupt = TypeVar("_AnyInterrupt", bound=Interrupt)


class InterruptManager(Closing):
    """Hands interrupts out and takes all of them back in `close`.

    >>> from shardio.interrupt import LegacyConfig, RecordingBackend
    >>> with RecordingBackend() as backend, InterruptManager(backend) as interrupts:
    ...     com1 = interrupts.edge(LegacyConfig(line=4))
    ...     com1.enable()
    ...     com1.trigger()
    ...     backend.delivered(gsi=4)
    1
    """

    def __init__(
        self,
        backend: InterruptBackend,
        loop: asyncio.AbstractEventLoop | None = None,
        counts: Counts | None = None,
    ) -> None:
        """`loop`: watches the resample fds of level interrupts; without one, their owner calls `resample`.
        `counts`: where all of them are counted (None: in `counts` of this).
        """
        self.counts = counts or Counts()
        self._backend = backend
        self._loop = loop
        self._closers: list[Callable[[], None]] = []

    def edge(self, config: LegacyConfig) -> EdgeInterrupt:
        """An edge interrupt on a legacy line, disabled. Raises InterruptError when the backend refuses."""
        return self._keep(EdgeInterrupt(self._backend, self._backend.allocate(config.line), self.counts))

    def level(self, config: LegacyConfig, *, followed: bool = False) -> LevelInterrupt:
        """A level interrupt on a legacy line or INTx pin, disabled. The line may be shared with other
        devices. `followed`: its controller sees each fall, too, as an edge-triggered pin must (an ISA line);
        outside of accesses that takes longer.

        Raises InterruptError when the backend refuses.
        """
        interrupt = level_interrupt(self._backend, config.line, followed=followed, counts=self.counts)
        self._closers.append(self._watch(interrupt))
        return self._keep(interrupt)

    def message(self, config: MsiConfig | None = None) -> EdgeInterrupt:
        """One message interrupt, disabled; `configure` it before it is enabled when no `config` is given.

        Raises InterruptError when no GSI is left.
        """
        interrupt = self._keep(EdgeInterrupt(self._backend, self._backend.allocate(None), self.counts))
        if config is not None:
            interrupt.configure(config)
        return interrupt

    def group(self, count: int, legacy: LegacyConfig | None = None) -> InterruptGroup:
        """A group of `count` vectors without a mode yet. Raises InterruptError for an impossible count."""
        from shardio.interrupt.group import InterruptGroup

        group = InterruptGroup(self._backend, count, legacy, self._watch, self.counts)
        self._closers.append(group.free)
        return group

    def doorbells(self, device: DoorbellDevice, base: int, *, pio: bool = False) -> DoorbellSet | None:
        """Bind the doorbells of `device` for a range that begins at `base` (a port when `pio`) from now on:
        for a range that comes, goes and moves at the guest's will. The caller closes the set.

        None where nobody can bind any (a backend without a hypervisor, no loop): they stay ordinary writes.
        """
        from shardio.interrupt.doorbell import DoorbellBackend, DoorbellSet

        if self._loop is None or not isinstance(self._backend, DoorbellBackend):
            return None
        return DoorbellSet(device, base, self._backend, self._loop, pio=pio)

    def close(self) -> None:
        """Free everything that was handed out."""
        while self._closers:
            self._closers.pop()()

    def _keep(self, interrupt: _AnyInterrupt) -> _AnyInterrupt:
        self._closers.append(interrupt.free)
        return interrupt

    def _watch(self, line: LevelInterrupt) -> Callable[[], None]:
        loop = self._loop
        fd = line.resample_fd
        if loop is None or fd is None:
            return lambda: None
        loop.add_reader(fd, line.resample)

        def unwatch() -> None:
            loop.remove_reader(fd)

        return unwatch
