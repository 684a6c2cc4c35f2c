"""`KvmDoorbells`: doorbells over KVM_IOEVENTFD. Used by the process that made the VM."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from shardio.errors import InterruptError
from shardio.interrupt.doorbell import BoundDoorbell, Doorbell

if TYPE_CHECKING:
    from shardio.kvm.vm import Vm


class KvmDoorbells:
    """A `DoorbellBackend` (floor 2) of one VM. Close it before the VM."""

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self._bound: dict[int, tuple[int, int, Doorbell, bool]] = {}
        self._next_handle = 1

    def bind_doorbell(self, address: int, doorbell: Doorbell, *, pio: bool) -> BoundDoorbell:
        """See `DoorbellBackend.bind_doorbell`. Raises KvmError when the kernel refuses, InterruptError
        without fds.
        """
        try:
            fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError as error:
            hint = "raise the limit on open files (ulimit -n)"
            raise InterruptError("eventfd", str(error.strerror), hint) from error
        try:
            self._vm.ioeventfd(fd, address, doorbell.length, pio, doorbell.datamatch)
        except BaseException:
            os.close(fd)
            raise
        handle = self._next_handle
        self._next_handle += 1
        self._bound[handle] = (fd, address, doorbell, pio)
        return BoundDoorbell(handle, fd)

    def unbind_doorbell(self, handle: int) -> None:
        """See `DoorbellBackend.unbind_doorbell`. Raises InterruptError for a handle that is not bound."""
        if handle not in self._bound:
            raise InterruptError(f"doorbell {handle}", "is not bound", "unbind each doorbell once")
        fd, address, doorbell, pio = self._bound.pop(handle)
        self._vm.ioeventfd(fd, address, doorbell.length, pio, doorbell.datamatch, deassign=True)
        os.close(fd)

    def close(self) -> None:
        """Unbind everything."""
        for handle in list(self._bound):
            self.unbind_doorbell(handle)
