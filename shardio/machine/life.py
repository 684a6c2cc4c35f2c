"""Where a machine is in its life, how it ended, and how long its vCPUs have run.

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
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from enum import IntEnum

from shardio.errors import MachineError
from shardio.machine.statistics import ExitInfo


class State(IntEnum):
    """What a machine is; it only goes on, never back."""

    NEW = 0
    STARTING = 1
    RUNNING = 2
    STOPPED = 3
    CLOSED = 4


_REFUSALS = {
    State.NEW: ("the machine does not run", "start() it first"),
    State.STARTING: ("the machine's start has failed", "close it and make a new Machine"),
    State.RUNNING: ("the machine has been started", "make a new one, or resume() after pause()"),
    State.STOPPED: ("the machine has stopped", "do it between start() and stop(), or make a new Machine"),
    State.CLOSED: ("the machine is closed", "make a new Machine"),
}


class Life:
    """One machine's. `exit`: how it ended, None before; `closing`: done once somebody wants to close it."""

    def __init__(self) -> None:
        self.state = State.NEW
        self.exit: ExitInfo | None = None
        self.closing: Future[None] = Future()
        self._pid = os.getpid()
        self._turn = threading.RLock()
        self._ended = threading.Event()
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
            raise MachineError("the machine is another process's", "use it where it was made, not in a fork")
        with self._turn:
            self.require(*allowed)
            yield

    def require(self, *allowed: State) -> None:
        """Raises `MachineError` in a state that is not among those `allowed` (none: in any)."""
        if allowed and self.state not in allowed:
            raise MachineError(*_REFUSALS[self.state])

    def break_off(self) -> None:
        """Nobody is to wait for a shard any more. From any thread, out of turn."""
        with contextlib.suppress(InvalidStateError):  # it is done
            self.closing.set_result(None)

    def end(self, info: ExitInfo) -> None:
        """The first end counts. From any thread, out of turn."""
        if self.exit is None:
            self.exit = info
            self._ended.set()

    def wait(self, timeout: float | None) -> ExitInfo | None:
        """Until the end, or None after `timeout` seconds."""
        return self.exit if self._ended.wait(timeout) else None

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
