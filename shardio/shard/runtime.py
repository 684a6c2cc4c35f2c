"""Drives the C drain loop from asyncio, so that rings and host I/O share a thread and neither starves the
other.

Facts. The loop in C polls, yields and finally announces sleep; then a doorbell (an eventfd) tells of the next
request. An iteration of asyncio costs system calls and interpreter time that no access should pay. The
selector's epoll descriptor is itself pollable.

Consequences. A turn of the C loop lasts while requests keep coming, at most `TURN_NS`; it looks at the epoll
descriptor every 50 us and returns early when host I/O is ready. After a turn that ended hot, the next one is
scheduled behind what asyncio has to run. After one that ended asleep, the doorbell's reader starts the next;
so does a slow timer, in case a wake-up was lost, which is then counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import selectors
import traceback
from collections.abc import Callable

from shardio.errors import FabricError
from shardio.fabric import Fabric, Owner, Turn

TURN_NS = 500_000
"""Longest turn of the drain loop: how late a timer can be in a busy shard."""
LOOK_S = 0.1
"""How often a sleeping shard looks without having been rung."""

log = logging.getLogger("shardio.shard")


def new_event_loop() -> tuple[asyncio.AbstractEventLoop, int]:
    """An event loop and the descriptor that is readable when it has host I/O to do."""
    selector = selectors.EpollSelector()
    return asyncio.SelectorEventLoop(selector), selector.fileno()


class Runtime:
    """The owner of one shard, driven by an event loop. `names`: range index to device name, for messages."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        epoll_fd: int,
        fabric: Fabric,
        shard: int,
        doorbell: int,
        report: Callable[[str, str], None],
    ) -> None:
        self.loop = loop
        self.names: dict[int, str] = {}
        self.owner = Owner(fabric, shard, doorbell, self._failed)
        self._epoll_fd = epoll_fd
        self._doorbell = doorbell
        self._report = report
        self._sites: set[tuple[int, str, int]] = set()
        self._scheduled: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._look_s = LOOK_S

    def serve(self) -> None:
        """Begin to drain."""
        self.loop.add_reader(self._doorbell, self._rung)
        self._schedule()
        self._timer = self.loop.call_later(self._look_s, self._look)

    def close(self) -> None:
        """Stop draining. Requests that come later wait for a successor."""
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
            if self.owner.elsewhere:  # a handler forked, and the child came back: the loop is not its own
                os._exit(os.EX_SOFTWARE)
            raise
        if turn is not Turn.ASLEEP:
            self._schedule()

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
        name = self.names.get(index, f"range {index}")
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else type(error).__name__
        site = (index, where, write)
        if site in self._sites:
            return
        self._sites.add(site)
        access = "write" if write else "read"
        log.error(
            "device %s failed a %s (the guest sees %s; logged once for this place)",
            name,
            access,
            "it dropped" if write else "all-ones",
            exc_info=error,
        )
        self._report(name, f"{access}: {type(error).__name__}: {error} ({where})"[:1000])
