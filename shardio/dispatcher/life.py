"""Where a dispatcher is in its life, and the machine over it, how it ended, and how long its vCPUs have run.

Facts. Workers and shards run in, or map, what the machine holds: giving that back while one of them lives
ends the VMM with a fault. A user may stop a machine from one thread while another waits in `run`, break off
a `stop` by Ctrl-C, go on with a machine that is closed, or fork while it runs: the child holds the same
objects, and neither the supervisor's thread nor the processes.

Consequences. What changes the machine takes turns (`turn`), and whoever comes second finds the first one's
work done. A state is left only when all that it stands for is undone, so that what was broken off can be
repeated. In a fork's child, everything but closing is refused, and closing does nothing.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from enum import IntEnum

import msgspec

from shardio.dispatcher.statistics import ExitInfo
from shardio.errors import MachineError, ShardioError

LOOK_S = 0.1
"""How often a waiting thread looks for signals that came right before it slept."""


class State(IntEnum):
    """What a machine is; it only goes on, never back."""

    NEW = 0
    STARTING = 1
    RUNNING = 2
    STOPPED = 3
    CLOSED = 4


_REFUSALS = {
    State.NEW: ("the {noun} does not run", "start() it first"),
    State.STARTING: ("the {noun}'s start has failed", "close it and make a new one"),
    State.RUNNING: ("the {noun} has been started", "make a new one, or resume() after pause()"),
    State.STOPPED: ("the {noun} has stopped", "do it between start() and stop(), or make a new one"),
    State.CLOSED: ("the {noun} is closed", "make a new one"),
}


class Life:
    """One machine's. `exit`: how it ended, None before; `error`: what whoever waits for that is to be told by
    an exception; `closing`: done once somebody wants to close it."""

    def __init__(self, noun: str = "machine") -> None:
        """`noun`: what messages call it."""
        self.noun = noun
        self.state = State.NEW
        self.exit: ExitInfo | None = None
        self.error: ShardioError | None = None
        self.closing: Future[None] = Future()
        self.quarantined: list[str] = []
        """Devices that nobody answers for any more."""
        self._pid = os.getpid()
        self._turn = threading.RLock()
        self._ended = threading.Lock()
        """Held until the end."""
        self._ended.acquire()
        self._listeners: set[Callable[[], None]] = set()
        self._running_since: int | None = None
        self._ran_ns = 0

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the one that made the machine."""
        return os.getpid() != self._pid

    @contextmanager
    def turn(self, *allowed: State) -> Iterator[None]:
        """One caller at a time. Raises `MachineError` in a state that is not among those `allowed` (none: in
        any), or in a fork.
        """
        if self.forked:
            raise MachineError(
                f"the {self.noun} is another process's", "use it where it was made, not in a fork"
            )
        with self._turn:
            self.require(*allowed)
            yield

    @contextmanager
    def turn_within(self, seconds: float) -> Iterator[None]:
        """A turn that is waited for no longer than `seconds`, for a thread that has others to serve. Raises
        `MachineError` when it does not come.
        """
        if not self._turn.acquire(timeout=seconds):
            raise MachineError(f"the {self.noun} is busy: it starts, pauses or stops", "try again")
        try:
            yield
        finally:
            self._turn.release()

    def require(self, *allowed: State) -> None:
        """Raises `MachineError` in a state that is not among those `allowed` (none: in any)."""
        if allowed and self.state not in allowed:
            what, hint = _REFUSALS[self.state]
            raise MachineError(what.format(noun=self.noun), hint)

    def break_off(self) -> None:
        """Nobody is to wait for a shard any more. From any thread, out of turn."""
        with contextlib.suppress(InvalidStateError):  # it is done
            self.closing.set_result(None)

    def end(self, info: ExitInfo, error: ShardioError | None = None) -> None:
        """The first end counts. From any thread, out of turn."""
        if self.exit is None:
            self.error = error
            self.exit = msgspec.structs.replace(info, quarantined=tuple(dict.fromkeys(self.quarantined)))
            with contextlib.suppress(RuntimeError):  # another thread has just done so
                self._ended.release()
            for listener in tuple(self._listeners):
                listener()

    def on_end(self, listener: Callable[[], None]) -> None:
        """Call `listener` at the end, in whatever thread that comes from; at once where it has come."""
        self._listeners.add(listener)
        if self.exit is not None:
            listener()

    def off_end(self, listener: Callable[[], None]) -> None:
        """Call it no more."""
        self._listeners.discard(listener)

    def wait(self, timeout: float | None) -> ExitInfo | None:
        """Until the end, or None after `timeout` seconds. Raises the error that it ended with.

        The interpreter handles a signal that comes right before it sleeps only when it wakes, and the handler
        may raise, wherever this is: so this sleeps in pieces, and holds nothing that another thread needs.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self.exit is None and (left := deadline - time.monotonic()) > 0:
            if self._ended.acquire(timeout=min(LOOK_S, left)):
                self._ended.release()
        return self._end()

    def _end(self) -> ExitInfo | None:
        if self.error is not None:
            raise self.error
        return self.exit

    async def wait_async(self, timeout: float | None) -> ExitInfo | None:
        """`wait` in an event loop; it leaves nothing behind when it is cancelled."""
        import asyncio  # tens of milliseconds that others need not pay

        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def listener() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits there
                loop.call_soon_threadsafe(ended.set)

        self._listeners.add(listener)
        try:
            if self.exit is None:
                async with asyncio.timeout(timeout):
                    await ended.wait()
        except TimeoutError:
            pass
        finally:
            self._listeners.discard(listener)
        return self._end()

    def clock_on(self) -> None:
        """The vCPUs run."""
        if self._running_since is None:
            self._running_since = time.monotonic_ns()

    def clock_off(self) -> None:
        """They do not."""
        if self._running_since is not None:
            self._ran_ns += time.monotonic_ns() - self._running_since
            self._running_since = None

    @property
    def ran_ns(self) -> int:
        """Nanoseconds that the vCPUs have been running."""
        now = 0 if self._running_since is None else time.monotonic_ns() - self._running_since
        return self._ran_ns + now
