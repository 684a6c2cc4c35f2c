"""/dev/kvm itself: opening it, what it can do, and making VMs."""

from __future__ import annotations

import errno
import os
from typing import Any

from shardio._core import lib
from shardio.closing import Closing
from shardio.errors import HostError, KvmError
from shardio.kvm import cpuid
from shardio.kvm.gate import capability, ioctl
from shardio.kvm.vm import Vm

DEVICE = "/dev/kvm"


class Kvm(Closing):
    """An open /dev/kvm. Raises `HostError` with the hint where it is missing or not permitted.

    `path` is the device node. `KvmError` where the kernel's KVM speaks another API version than 12.
    """

    def __init__(self, path: str = DEVICE) -> None:
        self.path = path
        self._cpuid: Any = None
        self._fd = _open(path)
        try:
            self._check_version()
            self.run_size = ioctl(self._fd, "KVM_GET_VCPU_MMAP_SIZE")
            self.coalesced_page = capability(self._fd, "KVM_CAP_COALESCED_MMIO")
        except BaseException:
            self.close()
            raise

    def _check_version(self) -> None:
        try:
            version = ioctl(self._fd, "KVM_GET_API_VERSION")
        except KvmError as error:
            if error.errno != errno.ENOTTY:
                raise
            hint = "make the node of KVM (mknod c 10 232), or remove what covers it"
            raise HostError(f"{self.path} is not KVM's device", hint) from None
        if version != lib.KVM_API_VERSION:
            hint = f"use a kernel whose KVM API is {lib.KVM_API_VERSION}, not {version}"
            raise KvmError("KVM_GET_API_VERSION", errno.EPROTO, hint)

    @property
    def fd(self) -> int:
        """The descriptor of /dev/kvm, -1 once closed."""
        return self._fd

    def check_extension(self, name: str) -> int:
        """KVM_CHECK_EXTENSION: the value of capability `name` ("KVM_CAP_..."), 0 where it is missing."""
        return capability(self._fd, name)

    @property
    def max_vcpus(self) -> int:
        """How many vCPUs a VM can have (KVM_CAP_MAX_VCPUS)."""
        return self.check_extension("KVM_CAP_MAX_VCPUS")

    def create_vm(self) -> Vm:
        """KVM_CREATE_VM: an empty machine, bound to this process's address space. Raises `KvmError`."""
        if hasattr(lib, "KVM_GET_SUPPORTED_CPUID"):
            # Asked for now and kept: the vCPUs of a VM may be set up after this object is closed.
            self.supported_cpuid()
        return Vm(self, ioctl(self._fd, "KVM_CREATE_VM", 0))

    def supported_cpuid(self) -> Any:
        """KVM_GET_SUPPORTED_CPUID: a cffi `struct kvm_cpuid2 *` of what a guest may see; read only."""
        if self._cpuid is None:
            self._cpuid = cpuid.supported(self._fd)
        return self._cpuid

    def close(self) -> None:
        """Closes the descriptor; VMs made from it go on. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        hints = {
            errno.ENOENT: "load the module (modprobe kvm_intel or kvm_amd), enable virtualization in the"
            " firmware, or allow nested virtualization on the host",
            errno.ENODEV: "load the module (modprobe kvm_intel or kvm_amd)",
            errno.EACCES: "join the group that owns it (usermod -aG kvm $USER, then log in again)",
            errno.EPERM: "allow the device in the container or sandbox (docker: --device /dev/kvm)",
            errno.EMFILE: "raise the limit on open files (ulimit -n)",
        }
        hint = hints.get(error.errno or 0, "make it readable and writable for this user")
        raise HostError(f"cannot open {path}: {error.strerror}", hint) from error
