"""The x86-64 part of a `Vm`: the PIT and the pages that VMX needs for real mode."""

from __future__ import annotations

from typing import Any

from shardio._core import ffi, lib
from shardio.kvm.gate import ioctl
from shardio.kvm.kept import Kept
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

    def program_pics(self, master: int = 0x08, slave: int = 0x70, masked: int = 0xFFFF) -> None:
        """KVM_SET_IRQCHIP: the 8259s as firmware leaves them (ICW1 to ICW4, OCW1), for a guest that is loaded
        without one: vectors from `master` and `slave` on; bit n of `masked` masks line n. The in-kernel
        irqchip must be there.
        """
        for chip, first, mask in (
            (lib.KVM_IRQCHIP_PIC_MASTER, master, masked & 0xFF),
            (lib.KVM_IRQCHIP_PIC_SLAVE, slave, masked >> 8),
        ):
            state = self.get_irqchip(chip)
            pic = state.chip.pic
            pic.irq_base, pic.imr, pic.init4, pic.init_state = first & 0xF8, mask & 0xFF, 1, 0
            ioctl(self._fd, "KVM_SET_IRQCHIP", state.cdata)

    def get_irqchip(self, chip: int) -> Any:
        """KVM_GET_IRQCHIP of an in-kernel controller (`lib.KVM_IRQCHIP_*`), a `struct kvm_irqchip`."""
        state = ffi.new("struct kvm_irqchip *")
        state.chip_id = chip
        ioctl(self._fd, "KVM_GET_IRQCHIP", state)
        return Kept(state)

    def create_pit(self) -> None:
        """KVM_CREATE_PIT2: the in-kernel i8254 with port 0x61; needs `create_irqchip()` first."""
        config = ffi.new("struct kvm_pit_config *")
        config.flags = lib.KVM_PIT_SPEAKER_DUMMY
        ioctl(self._fd, "KVM_CREATE_PIT2", config)
