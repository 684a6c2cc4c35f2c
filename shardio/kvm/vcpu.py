"""A vCPU of KVM: its descriptor, its run page and, for simple use, its run loop's one step.

The data path does not come here: a vCPU worker (`native/worker.c`) runs KVM_RUN on `fd` and reads `run_page`
itself. `Vcpu.run()` does the same in this process, one exit a call, for guests of a few exits and for tests.
"""

from __future__ import annotations

import errno
import mmap
import os
from typing import TYPE_CHECKING, Any

from shardio._core import ffi, lib
from shardio.closing import Closing
from shardio.errors import KvmError
from shardio.kvm.exits import Exit, Interrupted, decode
from shardio.kvm.gate import check, ioctl
from shardio.kvm.x86_vcpu import X86Vcpu

if TYPE_CHECKING:
    from shardio.kvm.kvm import Kvm


_NO_ROOM = "raise the limits on memory and open files (ulimit -v, -n)"


class Vcpu(X86Vcpu, Closing):
    """KVM_CREATE_VCPU's descriptor; made by `Vm.create_vcpu()`. Methods raise `KvmError`."""

    def __init__(self, index: int, fd: int, kvm: Kvm) -> None:
        self.index = index
        """The vCPU's number, which is its APIC id on x86-64."""
        self.run_size = kvm.run_size
        """Bytes of the run page and what follows it (KVM_GET_VCPU_MMAP_SIZE)."""
        self._fd = fd
        self._kvm = kvm
        try:
            mapping = mmap.mmap(fd, kvm.run_size)
        except OSError as error:
            os.close(fd)
            raise KvmError("mmap of KVM_RUN's page", error.errno or 0, _NO_ROOM) from None
        except BaseException:
            os.close(fd)
            raise
        run = ffi.cast("struct kvm_run *", ffi.from_buffer(mapping))
        # Mapped for as long as anybody holds this, an exit's data for instance.
        self._run: Any = ffi.gc(run, lambda _: mapping.close())

    @property
    def fd(self) -> int:
        """The vCPU descriptor, -1 once closed."""
        return self._fd

    @property
    def run_page(self) -> int:
        """The address in this process of the mapped `struct kvm_run`; valid until `close()`."""
        return int(ffi.cast("uintptr_t", self._opened()))

    @property
    def coalesced_ring(self) -> int:
        """The address here of the VM's `struct kvm_coalesced_mmio_ring`, which all its vCPUs share.

        0 where KVM has no coalesced accesses (KVM_CAP_COALESCED_MMIO, whose value is the ring's page).
        """
        page = self._kvm.coalesced_page
        return self.run_page + page * mmap.PAGESIZE if page else 0

    @property
    def run_struct(self) -> Any:
        """The run page as a cffi `struct kvm_run *`; valid until `close()`."""
        return self._opened()

    def run(self) -> Exit:
        """KVM_RUN until the next exit, described. `Interrupted` after `kick()` or a signal.

        The data of an `IoExit` or `MmioExit` is a view of the run page: fill it for a read before the next
        `run()`, which completes the access. An AP is waited for until its SIPI comes.
        """
        while True:
            result = lib.shardio_kvm_run(self._fd)
            if result == -errno.EINTR:
                return Interrupted()
            # An AP that was sent INIT or a SIPI says so with EAGAIN, and is then to be run again.
            if result != -errno.EAGAIN:
                check(result, "KVM_RUN")
                return decode(self._opened())

    def kick(self, immediate: bool = True) -> None:
        """Sets `immediate_exit`: the next KVM_RUN returns at once, `Interrupted`, until it is set to False.

        To leave a KVM_RUN that is under way, a signal must also reach the thread that is in it.
        """
        self._opened().immediate_exit = int(immediate)

    def get_mp_state(self) -> int:
        """KVM_GET_MP_STATE: a KVM_MP_STATE_* number (0 runnable, 1 uninitialized, 3 halted)."""
        state = ffi.new("struct kvm_mp_state *")
        ioctl(self._fd, "KVM_GET_MP_STATE", state)
        return int(state.mp_state)

    def set_mp_state(self, mp_state: int) -> None:
        """KVM_SET_MP_STATE, a KVM_MP_STATE_* number; other than runnable needs the in-kernel irqchip."""
        state = ffi.new("struct kvm_mp_state *")
        state.mp_state = mp_state
        ioctl(self._fd, "KVM_SET_MP_STATE", state)

    def close(self) -> None:
        """Closes the descriptor, and unmaps the run page once no exit's `data` shows it. Idempotent. Nobody
        may be inside KVM_RUN.
        """
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._run = None
            os.close(fd)

    def _opened(self) -> Any:
        if self._run is None:
            check(-errno.EBADF, "KVM_RUN")
        return self._run
