"""`SoftDoorbells`: doorbells of a software machine. The worker rings an eventfd instead of making the access.

Workers get descriptors only when they start, so there is a pool of eventfds from the beginning. One is used
again when its doorbell is gone: what was rung before is read away first.
"""

from __future__ import annotations

import contextlib
import os

from shardio._core import lib
from shardio.closing import Closing
from shardio.errors import HostError, InterruptError
from shardio.interrupt.doorbell import BoundDoorbell, Doorbell
from shardio.soft.record import Record


class SoftDoorbells(Closing):
    """A `DoorbellBackend` of one machine; `fds`: the pool, for the workers."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._used: set[int] = set()
        self.fds: tuple[int, ...] = ()
        try:
            for _ in range(lib.SIO_SOFT_DOORBELLS):
                self.fds += (os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC),)
        except OSError as error:
            self.close()
            hint = "raise the limit on open files (ulimit -n)"
            raise HostError(f"doorbells: {error.strerror}", hint=hint) from error

    def bind_doorbell(self, address: int, doorbell: Doorbell, *, pio: bool) -> BoundDoorbell:
        """See `DoorbellBackend.bind_doorbell`. Raises InterruptError where all are in use."""
        slot = next((slot for slot in range(len(self.fds)) if slot not in self._used), None)
        if slot is None:
            raise InterruptError("doorbell", f"all {len(self.fds)} are in use", "leave it an ordinary write")
        entry = self._record.view.doorbell[slot]
        entry.address, entry.length = address, doorbell.length
        entry.space = lib.SIO_PIO if pio else lib.SIO_MMIO
        entry.match, entry.value = doorbell.datamatch is not None, doorbell.datamatch or 0
        lib.sio_soft_doorbell(self._record.view, slot, True)
        self._used.add(slot)
        return BoundDoorbell(slot, self.fds[slot])

    def unbind_doorbell(self, handle: int) -> None:
        """See `DoorbellBackend.unbind_doorbell`. Raises InterruptError for a handle that is not bound."""
        if handle not in self._used:
            raise InterruptError(f"doorbell {handle}", "is not bound", "unbind each doorbell once")
        lib.sio_soft_doorbell(self._record.view, handle, False)
        self._used.remove(handle)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fds[handle])

    def close(self) -> None:
        """Unbind everything. Idempotent."""
        for handle in list(self._used):
            self.unbind_doorbell(handle)
        for fd in self.fds:
            os.close(fd)
        self.fds = ()
