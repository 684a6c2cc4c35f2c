"""Drives the C drain loop from asyncio, so that rings and host I/O share a thread and neither starves the
other.

Facts. The loop in C polls, yields and finally announces sleep; then a doorbell (an eventfd) tells of the next
request. An iteration of asyncio costs system calls and interpreter time that no access should pay. The
selector's epoll descriptor is itself pollable.

Consequences. A turn of the C loop lasts while requests keep coming, at most `TURN_NS`; it looks at the epoll
descriptor every 50 us, and while it has nothing to do, and returns early when host I/O is ready. After a turn
that ended hot, the next one is scheduled behind what asyncio has to run. After one that ended asleep, asyncio
asks its selector what is ready, and the selector is ours: it sleeps in C, where the shard's doorbell starts
the next turn and devices' doorbells are delivered (native/bells.h); asyncio gets to know what else there is.
A slow timer looks too, in case a wake-up was lost, which is then counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import selectors
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from shardio.errors import FabricError
from shardio.fabric import Fabric, Owner, Turn
from shardio.fabric.owner import NO_RANGE, RUNG

if TYPE_CHECKING:
    from array import array

TURN_NS = 500_000
"""Longest turn of the drain loop: how late a timer can be in a busy shard."""
LOOK_S = 0.1
"""How often a sleeping shard looks without having been rung."""

log = logging.getLogger("shardio.shard")

_FAILED = {
    0: ("read", "the guest sees all-ones; "),
    1: ("write", "the guest sees it dropped; "),
    RUNG: ("doorbell", ""),
}


class Selector(selectors.EpollSelector):
    """A selector that sleeps by `wait`, once there is one: called with milliseconds (-1: for ever), it says
    whether something is ready that is the event loop's.
    """

    wait: Callable[[int], bool] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready."""
        if self.wait is None:
            return super().select(timeout)
        # As the base class does, rounded up: what is due in less than a millisecond is not asked for in vain.
        milliseconds = -1 if timeout is None else 0 if timeout <= 0 else math.ceil(timeout * 1e3)
        return super().select(0) if self.wait(milliseconds) else []


class Loop(asyncio.SelectorEventLoop):
    """A shard's event loop. A `Runtime` sleeps for it, and delivers doorbells."""

    def __init__(self) -> None:
        self.selector = Selector()
        super().__init__(self.selector)
        self.runtime: Runtime | None = None
        """The first one that was made with this loop."""

    def add_doorbell(
        self, fd: int, ring: Callable[[int], object], index: int, rings: array[int], device: int = NO_RANGE
    ) -> None:
        """See `shardio.interrupt.doorbell.DoorbellLoop`. Raises `FabricError` where it cannot be watched."""
        assert self.runtime is not None, "devices come after the runtime"
        self.runtime.owner.add_bell(self.selector.fileno(), fd, ring, index, rings, device)

    def remove_doorbell(self, fd: int) -> None:
        """No more."""
        if self.runtime is not None:
            self.runtime.owner.remove_bell(self.selector.fileno(), fd)


class Runtime:
    """The owner of one shard, driven by an event loop. `names`: range index to device name, for messages."""

    def __init__(
        self,
        loop: Loop,
        fabric: Fabric,
        shard: int,
        doorbell: int,
        report: Callable[[str, str], None],
    ) -> None:
        self.loop = loop
        self.names: dict[int, str] = {}
        self.owner = Owner(fabric, shard, doorbell, self._failed)
        self._epoll_fd = loop.selector.fileno()
        self._doorbell = doorbell
        self._report = report
        self._sites: set[tuple[int, str, int]] = set()
        self._scheduled: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._look_s = LOOK_S
        if loop.runtime is None:
            loop.runtime, loop.selector.wait = self, self._wait

    def serve(self) -> None:
        """Begin to drain."""
        self.loop.add_reader(self._doorbell, self._rung)
        self._schedule()
        self._timer = self.loop.call_later(self._look_s, self._look)

    def close(self) -> None:
        """Stop draining. Requests that come later wait for a successor."""
        if self.loop.runtime is self:
            self.loop.runtime = self.loop.selector.wait = None
        self.loop.remove_reader(self._doorbell)
        for handle in (self._scheduled, self._timer):
            if handle is not None:
                handle.cancel()
        self.owner.close()

    def _schedule(self) -> None:
        if self._scheduled is None:
            self._scheduled = self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = None
        try:
            turn = self.owner.turn(TURN_NS, self._epoll_fd)
        except FabricError:
            self._end_fork()
            raise
        if turn is not Turn.ASLEEP:
            self._schedule()

    def _wait(self, milliseconds: int) -> bool:
        try:
            due, events = self.owner.wait(TURN_NS, self._epoll_fd, milliseconds)
        except FabricError:
            self._end_fork()
            raise
        if due and self._timer is not None:  # it serves
            self._schedule()
        return events

    def _end_fork(self) -> None:
        """End a child that a handler made and that came back from it: the loop is not its own."""
        if self.owner.elsewhere:
            os._exit(os.EX_SOFTWARE)

    def _rung(self) -> None:
        if self._scheduled is None:
            # The turn's beginning empties the doorbell.
            self._turn()
        else:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._doorbell)

    def look_every(self, seconds: float) -> None:
        """While asleep, look this often without having been rung (seconds)."""
        self._look_s = seconds
        if self._timer is not None:
            self._timer.cancel()
            self._look()

    def _look(self) -> None:
        self._schedule()
        self._timer = self.loop.call_later(self._look_s, self._look)

    def _failed(self, index: int, error: BaseException, write: int) -> None:
        """A handler raised. The access is refused in any case; the traceback is logged once per place."""
        name = self.names.get(index, "" if index == NO_RANGE else f"range {index}")
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else type(error).__name__
        site = (index, where, write)
        if site in self._sites:
            return
        self._sites.add(site)
        access, seen = _FAILED[write]
        log.error("device %s failed a %s (%slogged once for this place)", name, access, seen, exc_info=error)
        self._report(name, f"{access}: {type(error).__name__}: {error} ({where})"[:1000])
