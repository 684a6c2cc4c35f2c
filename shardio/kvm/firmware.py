"""Firmware in a VM of KVM: `shardio.firmware` places the copy in RAM, the ROM is a memory slot of its own.

It is read-only where KVM can do that (KVM_CAP_READONLY_MEM: a guest's write leaves as an MMIO exit, and is
dropped where no device claims the address) and plain RAM elsewhere.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from shardio.entry import RESET_VECTOR
from shardio.errors import KvmError
from shardio.firmware import FOUR_GIB, place_firmware
from shardio.kvm.vm import Vm
from shardio.memory import GuestMemory


def load_firmware(vm: Vm, memory: GuestMemory, path: str | Path) -> int:
    """Puts the image at `path` into the machine and returns the entry (real mode): the reset vector.

    The image's size is a multiple of 4 KiB, 64 KiB to 16 MiB. Raises `ImageError` for an image that
    cannot be one, or where RAM does not reach 1 MiB, `KvmError` where KVM refuses the slot.
    """
    image = place_firmware(memory, path)
    rom = mmap.mmap(-1, len(image))
    rom[:] = image
    base = FOUR_GIB - len(image)
    _add_rom(vm, base, rom)
    return RESET_VECTOR


def _add_rom(vm: Vm, base: int, rom: mmap.mmap) -> None:
    if vm.check_extension("KVM_CAP_READONLY_MEM"):
        try:
            vm.add_slot(base, rom, readonly=True)
        except KvmError:
            # Said to be there and refused: a guest that writes into its ROM finds RAM.
            pass
        else:
            return
    vm.add_slot(base, rom)
