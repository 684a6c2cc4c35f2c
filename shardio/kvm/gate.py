"""The one place where a KVM ioctl's errno becomes a typed error.

The C side (`native/kvm.c`) retries EINTR and returns `-errno`; `check` turns that into a `KvmError` that
names the ioctl and the usual hint. KVM ties a VM to the address space that created it, so every ioctl here
is made by the VMM process: from a forked child, KVM answers EIO.
"""

from __future__ import annotations

import errno
from typing import Any

from shardio._core import ffi, lib
from shardio.errors import KvmError

_HINTS = {
    ("KVM_CREATE_VM", errno.ENOMEM): "free memory on the host, or run fewer machines",
    ("KVM_CREATE_VM", errno.EBUSY): "another hypervisor holds the virtualization extensions: stop it",
    ("KVM_CREATE_VCPU", errno.EEXIST): "each vCPU index can be created once: use another index",
    ("KVM_CREATE_VCPU", errno.EINVAL): "use fewer vCPUs: the index is above KVM_CAP_MAX_VCPUS, or create the"
    " interrupt controller and the vCPUs in that order",
    ("KVM_SET_USER_MEMORY_REGION", errno.EEXIST): "the slot overlaps another: place it elsewhere",
    ("KVM_SET_USER_MEMORY_REGION", errno.EINVAL): "align address and size to 4096 and use a slot number below"
    " KVM_CAP_NR_MEMSLOTS",
    ("KVM_CREATE_IRQCHIP", errno.EEXIST): "the VM has its interrupt controller already: create it once",
    ("KVM_CREATE_IRQCHIP", errno.EINVAL): "create the interrupt controller before the vCPUs",
    ("KVM_CREATE_PIT2", errno.ENOENT): "the PIT needs the in-kernel irqchip: create_irqchip() first",
    ("KVM_CREATE_PIT2", errno.EEXIST): "the VM has its PIT already: create it once",
    ("KVM_IRQFD", errno.EINVAL): "irqfd needs the in-kernel irqchip and an eventfd; resample needs a GSI"
    " of the full (not split) irqchip",
    ("KVM_IRQFD", errno.EBUSY): "this eventfd is attached already: detach it, or use one eventfd per GSI",
    ("KVM_IOEVENTFD", errno.EEXIST): "this address, length and datamatch have an ioeventfd: detach it first",
    ("KVM_IOEVENTFD", errno.ENOSPC): "KVM's limit of in-kernel devices is reached: claim fewer doorbells",
    ("KVM_IOEVENTFD", errno.ENOENT): "no such ioeventfd is attached: detach with the arguments of the attach",
    ("KVM_IRQ_LINE", errno.ENXIO): "the VM has no in-kernel interrupt controller: create_irqchip() first",
    ("KVM_SIGNAL_MSI", errno.EINVAL): "MSI needs the in-kernel interrupt controller: create_irqchip() first",
    ("KVM_SET_GSI_ROUTING", errno.EINVAL): "GSIs and pins must be below KVM_CAP_IRQ_ROUTING's limit and the"
    " controller's pin count",
    ("KVM_REGISTER_COALESCED_MMIO", errno.ENOSPC): "KVM's limit of coalesced zones is reached: use fewer",
    ("KVM_GET_LAPIC", errno.EINVAL): "the vCPU has no in-kernel LAPIC: create_irqchip() before create_vcpu()",
    ("KVM_SET_LAPIC", errno.EINVAL): "the vCPU has no in-kernel LAPIC: create_irqchip() before create_vcpu()",
    ("KVM_SET_CPUID2", errno.E2BIG): "the CPUID table is too long: leave leaves out",
    ("KVM_SET_MP_STATE", errno.EINVAL): "only the in-kernel interrupt controller has this state",
    ("KVM_SET_SREGS", errno.EINVAL): "the segment, control and EFER values contradict each other",
}

_HINTS_OF_ANY_IOCTL = {
    errno.EIO: "the VM belongs to another process: issue KVM ioctls from the process that created it",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "the host's table of open files is full: raise fs.file-max",
    errno.ENOMEM: "free memory on the host, or give the guest less",
    errno.ENOTTY: "this kernel's KVM does not have this ioctl: use a newer kernel",
    errno.EBADF: "the Kvm, Vm or Vcpu is closed: keep it open while it is used",
    errno.EPERM: "run with the right to use KVM (group kvm)",
    errno.EINVAL: "an argument is out of range for this kernel's KVM, or the VM was set up in another order",
}

_HINT_UNKNOWN = "see the ioctl in the kernel's Documentation/virt/kvm/api.rst"


def check(result: int, ioctl: str) -> int:
    """`result` where it is not negative; else raises `KvmError` for the `-errno` that it is."""
    if result >= 0:
        return result
    number = -result
    hint = _HINTS.get((ioctl, number)) or _HINTS_OF_ANY_IOCTL.get(number) or _HINT_UNKNOWN
    raise KvmError(ioctl, number, hint)


def ioctl(fd: int, name: str, argument: Any = 0) -> int:
    """Issues the ioctl called `name` (of <linux/kvm.h>) with an int or a cffi pointer; raises `KvmError`."""
    value = argument if isinstance(argument, int) else int(ffi.cast("uintptr_t", argument))
    return check(lib.shardio_kvm_ioctl(fd, getattr(lib, name), value), name)


def capability(fd: int, name: str) -> int:
    """`KVM_CHECK_EXTENSION` of the capability called `name` on a /dev/kvm or VM fd: 0 where it is missing."""
    number = getattr(lib, name, None)
    return 0 if number is None else ioctl(fd, "KVM_CHECK_EXTENSION", number)
