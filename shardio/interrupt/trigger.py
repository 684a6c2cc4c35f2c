"""`Trigger`: the one thing that a device does with an interrupt, and its two implementations.

`EventFdTrigger` is the production path: one 8-byte write to an eventfd that KVM_IRQFD has bound to a GSI,
so the kernel injects and no other process takes part. `RecordingTrigger` counts, for unit tests of devices.

>>> trigger = RecordingTrigger()
>>> trigger.trigger()
>>> trigger.count
1
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Protocol, runtime_checkable

_ONE = (1).to_bytes(8, sys.byteorder)


@runtime_checkable
class Trigger(Protocol):
    """Anything that raises one interrupt when told to."""

    def trigger(self) -> None:
        """Raise the interrupt once. Never blocks; several calls before the guest looks may coalesce into
        one.
        """


def writer(fd: int) -> Callable[[], None]:
    """What adds 1 to eventfd `fd`, in as few steps as Python has: an interrupt takes a few microseconds."""
    write = os.write

    def ring() -> None:
        try:  # `suppress` would take four times as long as the write itself
            write(fd, _ONE)
        except BlockingIOError:  # the counter is at its maximum, 2^64 - 2: an interrupt is pending already
            return

    return ring


class EventFdTrigger:
    """Raises an interrupt by adding 1 to an eventfd, as KVM_IRQFD expects (eventfd(2), 8-byte native
    integer).

    The descriptor is the caller's: it is neither duplicated nor closed here. It should be non-blocking
    (EFD_NONBLOCK), or a saturated counter would block the caller.
    """

    __slots__ = ("_fd", "_write")

    def __init__(self, fd: int) -> None:
        """`fd`: an open eventfd.

        Raises ValueError if it is negative.
        """
        if fd < 0:
            raise ValueError(f"eventfd {fd} is not an open descriptor; pass the fd of os.eventfd()")
        self._fd = fd
        self._write = writer(fd)

    def fileno(self) -> int:
        """The eventfd that is written to."""
        return self._fd

    def trigger(self) -> None:
        """Add 1 to the eventfd.

        Raises OSError (EBADF) when the descriptor was closed.
        """
        self._write()

    def __repr__(self) -> str:
        return f"EventFdTrigger(fd={self._fd})"


class RecordingTrigger:
    """Counts its triggers instead of raising an interrupt: for device unit tests."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def trigger(self) -> None:
        """Add 1 to `count`."""
        self.count += 1

    def __repr__(self) -> str:
        return f"RecordingTrigger(count={self.count})"
