"""One user at a time, for what is no place to wait in line: a turn of the drain loop.

The core calls Python back and gives the interpreter up, so a second call may come from another thread, or
from a handler further up in the same one. Either would take the first one's state from under it. So would a
fork of the process, which has a copy of the private half of a state whose other half is shared.
"""

from __future__ import annotations

import os
import threading
import weakref

from shardio.errors import FabricError


class Alone:
    """`with alone:` enters, or raises `FabricError` where somebody is inside. `name`: of what, for the error.

    >>> alone = Alone("the owner of shard 0")
    >>> with alone, alone:
    ...     pass
    Traceback (most recent call last):
        ...
    shardio.errors.FabricError: the owner of shard 0 is at work; use it from one thread, not from its handlers
    """

    __slots__ = ("__weakref__", "_lock", "_name", "_pid")

    def __init__(self, name: str) -> None:
        self._name = name
        self._pid = os.getpid()
        self._lock: threading.Lock | _Elsewhere = threading.Lock()
        _all.add(self)

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.check_process()
            raise FabricError(f"{self._name} is at work", "use it from one thread, not from its handlers")

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @property
    def elsewhere(self) -> bool:
        """Whether this is a fork of the process that it belongs to."""
        return isinstance(self._lock, _Elsewhere)

    def check_process(self) -> None:
        """Raises `FabricError` in a fork of the process that it belongs to."""
        if self.elsewhere:
            raise FabricError(
                f"{self._name} belongs to process {self._pid}, of which this one is a fork",
                "make one of its own here, or start this process by spawn",
            )

    def _leave(self) -> None:
        self._lock = _Elsewhere()


class _Elsewhere:
    """The lock in a fork: nobody enters; who was inside when the process forked may leave."""

    def acquire(self, *, blocking: bool) -> bool:
        return False

    def release(self) -> None:
        pass


_all: weakref.WeakSet[Alone] = weakref.WeakSet()


def _leave_all() -> None:
    for alone in list(_all):
        alone._leave()


os.register_at_fork(after_in_child=_leave_all)
