"""Memory fences from Python, for words shared with the guest: the only file of the virtio devices that
orders memory.

CPython has no fence of its own, but taking and releasing a lock has what one is made of. On x86 the locked
instruction in either half orders every earlier store before every later load; nothing else is ever
reordered there (TSO), so a lighter fence is no instruction at all. On aarch64 one lock is not enough, as
the store may sink into the critical section and the load rise into it; but a release is never passed by a
later acquire, so two locks in a row are a full fence.
"""

from __future__ import annotations

import platform
from threading import Lock

_first = Lock()
_second = Lock()


def _one_lock() -> None:
    with _first:
        pass


def _two_locks() -> None:
    with _first:
        pass
    with _second:
        pass


def _nothing() -> None:
    pass


_X86 = platform.machine() in ("x86_64", "i686")

full_fence = _one_lock if _X86 else _two_locks
"""Every store before the call is visible to the guest before any load after it is made."""

light_fence = _nothing if _X86 else _two_locks
"""Loads stay before later loads and stores, stores before later stores; only store-load order is not
promised.
"""
