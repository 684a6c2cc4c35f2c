"""`InterruptGroup`: the n interrupts of one device function, and the mode in which they reach the guest.

A device keeps `group[i]` for good; what stands behind it changes with the mode. In INTx mode all vectors
share one level line, which the device lowers with `deassert` when the guest has read the cause. In MSI and
MSI-X mode each has its own message. A switch forgets what was pending: the guest that reprograms a function
re-reads its causes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shardio.errors import InterruptError
from shardio.interrupt.backend import InterruptBackend
from shardio.interrupt.config import (
    MSI_MAX_VECTORS,
    MSIX_MAX_VECTORS,
    InterruptMode,
    LegacyConfig,
    MsiConfig,
)
from shardio.interrupt.counts import DROPPED, Counts
from shardio.interrupt.interrupt import EdgeInterrupt, LevelInterrupt, level_interrupt


class GroupVector:
    """One vector of a group: a `Trigger` that outlives mode switches."""

    __slots__ = ("_group", "index")

    def __init__(self, group: InterruptGroup, index: int) -> None:
        self._group = group
        self.index = index

    def trigger(self) -> None:
        """Raise this vector in the group's mode; dropped while the group has none."""
        self._group.trigger(self.index)


class InterruptGroup:
    """`count` vectors of one function. Has no mode, and delivers nothing, until the first `switch`."""

    def __init__(
        self,
        backend: InterruptBackend,
        count: int,
        legacy: LegacyConfig | None = None,
        watch: Callable[[LevelInterrupt], Callable[[], None]] | None = None,
        counts: Counts | None = None,
    ) -> None:
        """`legacy`: the line for INTx mode, if the function has one. `watch`: calls the line's `resample`
        whenever its resample fd is readable, and returns what undoes that; None when the owner calls
        `resample` itself. `counts`: where its interrupts are counted (None: nowhere).

        Raises InterruptError for a count outside 1 to 2048.
        """
        if not 1 <= count <= MSIX_MAX_VECTORS:
            raise InterruptError("group", f"{count} vectors", f"use 1 to {MSIX_MAX_VECTORS}")
        self._backend = backend
        self._legacy = legacy
        self._watch = watch
        self._counts = counts or Counts()
        self._unwatch: Callable[[], None] | None = None
        self._mode: InterruptMode | None = None
        self._line: LevelInterrupt | None = None
        self._messages: tuple[EdgeInterrupt, ...] = ()
        self.vectors = tuple(GroupVector(self, index) for index in range(count))

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, index: int) -> GroupVector:
        return self.vectors[index]

    def __iter__(self) -> Iterator[GroupVector]:
        return iter(self.vectors)

    @property
    def mode(self) -> InterruptMode | None:
        """How vectors are delivered; None: not at all."""
        return self._mode

    @property
    def line(self) -> LevelInterrupt | None:
        """The level line, in INTx mode."""
        return self._line

    @property
    def messages(self) -> tuple[EdgeInterrupt, ...]:
        """The message interrupts, one a vector, in MSI and MSI-X mode; else empty."""
        return self._messages

    def switch(self, mode: InterruptMode | None) -> None:
        """Free what the old mode needs, allocate for the new one; None delivers nothing.

        In INTx mode the line is enabled at once; MSI and MSI-X vectors when they are configured and
        enabled. Raises InterruptError when the backend has none left (the group is then without mode) or
        the mode is impossible.
        """
        if mode == self._mode:
            return
        if mode is InterruptMode.INTX and self._legacy is None:
            raise InterruptError("group", "it has no legacy line", "make the group with a LegacyConfig")
        if mode is InterruptMode.MSI and len(self) > MSI_MAX_VECTORS:
            raise InterruptError(
                "group", f"MSI cannot have {len(self)} vectors", f"use at most {MSI_MAX_VECTORS}"
            )
        self._release()
        try:
            if mode is InterruptMode.INTX and self._legacy is not None:
                self._raise_line(self._legacy.line)
            elif mode is not None:
                for _ in self.vectors:
                    irqfd = self._backend.allocate(None)
                    self._messages += (EdgeInterrupt(self._backend, irqfd, self._counts),)
        except InterruptError:
            self._release()
            raise
        self._mode = mode

    def _raise_line(self, gsi: int) -> None:
        self._line = level_interrupt(self._backend, gsi, counts=self._counts)
        if self._watch is not None:
            self._unwatch = self._watch(self._line)
        self._line.enable()

    def configure_msi(self, message: MsiConfig) -> None:
        """MSI mode: vector i delivers `message` with i in the low bits of its data (PCI 3.0 section
        6.8.1.6).
        """
        if self._mode is not InterruptMode.MSI:
            raise InterruptError("group", "is not in MSI mode", "switch(InterruptMode.MSI) first")
        low_bits = (1 << (len(self) - 1).bit_length()) - 1
        for index, interrupt in enumerate(self._messages):
            data = message.data & ~low_bits | index
            interrupt.configure(MsiConfig(message.address, data, message.device_id))
            interrupt.enable()

    def trigger(self, index: int) -> None:
        """Raise vector `index` (0 to len - 1) in the current mode; dropped while there is none."""
        if self._messages:
            self._messages[index].trigger()
        elif self._line is not None:
            self._line.trigger()
        else:
            self._counts.cells[DROPPED] += 1

    def deassert(self) -> None:
        """INTx: the cause is gone, lower the line. In the other modes there is nothing to lower."""
        if self._line is not None:
            self._line.deassert()

    def free(self) -> None:
        """Give everything back. Idempotent; a later `switch` starts anew."""
        self._release()

    def _release(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        if self._line is not None:
            self._line.free()
            self._line = None
        for interrupt in self._messages:
            interrupt.free()
        self._messages = ()
        self._mode = None
