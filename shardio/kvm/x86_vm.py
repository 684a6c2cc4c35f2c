"""The x86-64 part of a `Vm`: the PIT and the pages that VMX needs for real mode."""

from __future__ import annotations

from shardio._core import ffi, lib
from shardio.kvm.gate import ioctl
from shardio.reserved import REAL_MODE_PAGES

IDENTITY_MAP_ADDRESS = REAL_MODE_PAGES
"""One page below the largest firmware image (16 MiB at the top of 4 GiB), where no device is placed."""
TSS_ADDRESS = IDENTITY_MAP_ADDRESS + 0x1000
"""Three pages after the identity map."""


class X86Vm:
    """Mixin of `Vm`: ioctls that exist on x86-64 alone."""

    _fd: int

    def set_identity_map_addr(self, address: int = IDENTITY_MAP_ADDRESS) -> None:
        """KVM_SET_IDENTITY_MAP_ADDR: one page that VMX uses in real mode; before the first vCPU."""
        cell = ffi.new("uint64_t *", address)
        ioctl(self._fd, "KVM_SET_IDENTITY_MAP_ADDR", cell)

    def set_tss_addr(self, address: int = TSS_ADDRESS) -> None:
        """KVM_SET_TSS_ADDR: three pages that VMX uses in real mode; outside every memory slot."""
        ioctl(self._fd, "KVM_SET_TSS_ADDR", address)

    def create_pit(self) -> None:
        """KVM_CREATE_PIT2: the in-kernel i8254 with port 0x61; needs `create_irqchip()` first."""
        config = ffi.new("struct kvm_pit_config *")
        config.flags = lib.KVM_PIT_SPEAKER_DUMMY
        ioctl(self._fd, "KVM_CREATE_PIT2", config)
