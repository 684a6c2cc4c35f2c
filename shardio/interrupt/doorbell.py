"""`Doorbell`: a write that a device wants as an event instead of an access (KVM_IOEVENTFD).

A device lists its doorbells in the attribute `doorbells`; the shard asks the VMM to bind an eventfd to each
and calls `device.doorbell(index)`, index being the position in that list, when it fires. The write then
never becomes a userspace exit. A doorbell that nothing was bound to arrives as an ordinary write.
"""

from __future__ import annotations

import logging
import os
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from shardio.errors import ShardioError
from shardio.rate import guest_log

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger("shardio.interrupt")


@dataclass(frozen=True, slots=True)
class Doorbell:
    """A write of `length` bytes at `offset` of the device's range, of the value `datamatch` or, if None, of
    any.

    `length` is 1, 2, 4 or 8, or 0 for any length (KVM_CAP_IOEVENTFD_ANY_LENGTH; then without datamatch).
    Raises ValueError for a negative offset, another length, or a datamatch that the length cannot hold.

    >>> Doorbell(offset=0x50, length=4, datamatch=1)
    Doorbell(offset=80, length=4, datamatch=1)
    """

    offset: int
    length: int
    datamatch: int | None = None

    def __post_init__(self) -> None:
        if self.offset < 0:
            raise ValueError(
                f"doorbell offset {self.offset} is negative; it counts from the start of the range"
            )
        if self.length not in (0, 1, 2, 4, 8):
            raise ValueError(f"doorbell length {self.length} is not 1, 2, 4 or 8 bytes, or 0 for any")
        if self.datamatch is not None and not (self.length and 0 <= self.datamatch < 1 << (8 * self.length)):
            raise ValueError(f"doorbell datamatch {self.datamatch:#x} does not fit in {self.length} bytes")


@dataclass(frozen=True, slots=True)
class BoundDoorbell:
    """A doorbell in force: its `handle` towards the backend, and the eventfd that it signals (the
    backend's).
    """

    handle: int
    fd: int


@runtime_checkable
class DoorbellBackend(Protocol):
    """What a hypervisor must offer for doorbells. Methods raise a ShardioError with the hint when refused."""

    def bind_doorbell(self, address: int, doorbell: Doorbell, *, pio: bool) -> BoundDoorbell:
        """Writes at `address` (a port when `pio`) that match signal an eventfd instead of leaving the
        guest.
        """

    def unbind_doorbell(self, handle: int) -> None:
        """Writes are ordinary accesses again; the eventfd is closed."""


class DoorbellDevice(Protocol):
    """A device with doorbells."""

    doorbells: Sequence[Doorbell]

    def doorbell(self, index: int) -> None:
        """`doorbells[index]` was rung, once or several times."""


@runtime_checkable
class DoorbellLoop(Protocol):
    """An event loop that delivers doorbells itself, sooner than readers are called: a shard's."""

    def add_doorbell(
        self, fd: int, ring: Callable[[int], object], index: int, rings: array[int], device: int = ...
    ) -> None:
        """When eventfd `fd` is rung, count in `rings[index]` how often, and call `ring(index)`. `device`: the
        index of a range of its device's, for a trace. Raises a ShardioError where it cannot.
        """

    def remove_doorbell(self, fd: int) -> None:
        """No more."""


class DoorbellSet:
    """All doorbells of one device, delivered as calls of `device.doorbell` from the loop."""

    def __init__(
        self,
        device: DoorbellDevice,
        base: int,
        backend: DoorbellBackend,
        loop: asyncio.AbstractEventLoop,
        *,
        pio: bool = False,
        told: Callable[[int], None] | None = None,
        index: int | None = None,
    ) -> None:
        """`base`: where the device's range begins; `index`: the range's, for a trace. A doorbell that is
        refused stays an ordinary write, logged. `told`: called before the device is.
        """
        self._device = device
        self._backend = backend
        self._loop = loop
        self._pio = pio
        self._range = {} if index is None else {"device": index}
        self._ringer = device.doorbell if told is None else _told_first(told, device.doorbell)
        self._bound: list[BoundDoorbell] = []
        self.rings = array("Q", bytes(8 * len(device.doorbells)))
        """How often each has been rung, those that one call of `device.doorbell` stood for each counted."""
        self._bind(base)

    @property
    def bound(self) -> int:
        """How many of the device's doorbells are in force."""
        return len(self._bound)

    def move(self, base: int) -> None:
        """The device's range begins at `base` now. What was rung before is delivered first."""
        self.close()
        self._bind(base)

    def close(self) -> None:
        """Unbind all; what was rung before is delivered first. Idempotent."""
        while self._bound:
            bound = self._bound.pop()
            if isinstance(self._loop, DoorbellLoop):
                self._loop.remove_doorbell(bound.fd)
            else:
                self._loop.remove_reader(bound.fd)
            self._read(bound.fd, len(self._bound))
            self._backend.unbind_doorbell(bound.handle)

    def _bind(self, base: int) -> None:
        for index, doorbell in enumerate(self._device.doorbells):
            try:
                bound = self._backend.bind_doorbell(base + doorbell.offset, doorbell, pio=self._pio)
            except ShardioError as error:
                # All after it stay ordinary too: positions in `_bound` are indices.
                # A guest causes it as often as it moves a base address register there.
                guest_log.warning(log, "doorbells from %d on stay ordinary writes: %s", index, str(error))
                return
            self._bound.append(bound)
            if isinstance(self._loop, DoorbellLoop):
                self._loop.add_doorbell(bound.fd, self._ringer, index, self.rings, **self._range)
            else:
                self._loop.add_reader(bound.fd, self._read, bound.fd, index)

    def _read(self, fd: int, index: int) -> None:
        with suppress(BlockingIOError):
            self.rings[index] += os.eventfd_read(fd)
            self._ringer(index)


def _told_first(told: Callable[[int], None], ring: Callable[[int], None]) -> Callable[[int], None]:
    def ringer(index: int) -> None:
        told(index)
        ring(index)

    return ringer
