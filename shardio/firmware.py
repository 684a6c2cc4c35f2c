"""Firmware images: a ROM that ends at 4 GiB, and a copy of its end below 1 MiB, as a PC expects (x86-64).

The last 128 KiB are copied into guest RAM at 0xE_0000 to 0xF_FFFF, where a BIOS runs and writes its own
variables. The ROM itself is the hypervisor's to map.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from shardio.errors import ImageError, MemoryAccessError
from shardio.memory import PAGE_SIZE, GuestMemory

FOUR_GIB: Final = 4 << 30
LARGEST: Final = 16 << 20
"""Bytes: below are the IOAPIC, the local APIC's page and, for some processors, KVM's own pages."""
LOW_COPY: Final = 128 << 10
"""Bytes of the image's end that are also in RAM, below 1 MiB."""
LOW_COPY_END: Final = 1 << 20


def place_firmware(memory: GuestMemory, path: str | Path) -> bytes:
    """Puts the copy of the image at `path` below 1 MiB, and returns the image.

    Its size is a multiple of 4 KiB, 64 KiB to 16 MiB. Raises `ImageError` for an image that cannot be one, or
    where RAM does not reach 1 MiB.
    """
    image = read_image(path)
    low = image[-LOW_COPY:]
    try:
        memory.write(LOW_COPY_END - len(low), low)
    except MemoryAccessError as error:
        raise ImageError(path, "needs RAM up to 1 MiB", "give the machine at least 1M of memory") from error
    return image


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
