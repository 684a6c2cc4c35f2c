"""One user at a time, for what is no place to wait in line: an access, a turn of the drain loop.

The core calls Python back and gives the interpreter up, so a second call may come from another thread, or
from a handler further up in the same one. Either would take the first one's state from under it.
"""

from __future__ import annotations

import threading

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

    __slots__ = ("_lock", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise FabricError(f"{self._name} is at work", "use it from one thread, not from its handlers")

    def __exit__(self, *_: object) -> None:
        self._lock.release()
