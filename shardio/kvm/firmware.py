"""Firmware images: a ROM at the top of 4 GiB and a copy of its end below 1 MiB, as a PC expects (x86-64).

The ROM is a memory slot of its own, read-only where KVM can do that (KVM_CAP_READONLY_MEM: a guest's write
leaves as an MMIO exit, and is dropped where no device claims the address) and plain RAM elsewhere. The last
128 KiB are copied into guest RAM at 0xE_0000 to 0xF_FFFF, where a BIOS runs and writes its own variables.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from shardio.errors import ImageError, KvmError, MemoryAccessError
from shardio.kvm.boot import RESET_VECTOR
from shardio.kvm.vm import Vm
from shardio.memory import PAGE_SIZE, GuestMemory

FOUR_GIB = 4 << 30
LARGEST = 16 << 20
"""Bytes: below are the IOAPIC, the local APIC's page and, for some processors, KVM's own pages."""
LOW_COPY = 128 << 10
"""Bytes of the image's end that are also in RAM, below 1 MiB."""
LOW_COPY_END = 1 << 20


def load_firmware(vm: Vm, memory: GuestMemory, path: str | Path) -> int:
    """Puts the image at `path` into the machine and returns the entry (real mode): the reset vector.

    The image's size is a multiple of 4 KiB, 64 KiB to 16 MiB. Raises `ImageError` for an image that
    cannot be one, or where RAM does not reach 1 MiB, `KvmError` where KVM refuses the slot.
    """
    image = read_image(path)
    low = image[-LOW_COPY:]
    try:
        memory.write(LOW_COPY_END - len(low), low)
    except MemoryAccessError as error:
        raise ImageError(path, "needs RAM up to 1 MiB", "give the machine at least 1M of memory") from error
    rom = mmap.mmap(-1, len(image))
    rom[:] = image
    base = FOUR_GIB - len(image)
    _add_rom(vm, base, rom)
    return RESET_VECTOR


def read_image(path: str | Path) -> bytes:
    """The firmware image at `path`; raises `ImageError` for an unreadable file or a wrong size."""
    try:
        image = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(path, f"cannot be read: {error.strerror}", "name a readable file") from error
    if len(image) < 64 << 10 or len(image) > LARGEST:
        raise ImageError(path, f"has {len(image)} bytes", "a firmware image has 64 KiB to 16 MiB")
    if len(image) % PAGE_SIZE:
        raise ImageError(path, f"has {len(image)} bytes", "use whole pages of 4 KiB: is the image cut?")
    return image


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
