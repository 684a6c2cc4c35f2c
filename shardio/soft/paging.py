"""Linear to guest-physical addresses by the guest's page tables: 32-bit paging and PAE.

Source: Intel SDM volume 3, 4.3 (32-bit paging) and 4.4 (PAE paging).
"""

from __future__ import annotations

from typing import Final

from shardio.errors import MemoryAccessError
from shardio.memory import GuestMemory

_CR0_PG: Final = 1 << 31
_CR4_PSE: Final = 1 << 4
_CR4_PAE: Final = 1 << 5
_PRESENT: Final = 1
_LARGE: Final = 1 << 7
_PAE_FRAME: Final = 0xF_FFFF_FFFF_F000


def walk(memory: GuestMemory, linear: int, cr0: int, cr3: int, cr4: int) -> int | None:
    """The guest-physical address of a linear one, None where nothing is mapped or a table is not in RAM."""
    linear &= 0xFFFF_FFFF
    if not cr0 & _CR0_PG:
        return linear
    try:
        return _pae(memory, linear, cr3) if cr4 & _CR4_PAE else _legacy(memory, linear, cr3, cr4)
    except MemoryAccessError:
        return None


def _legacy(memory: GuestMemory, linear: int, cr3: int, cr4: int) -> int | None:
    directory = _entry(memory, (cr3 & 0xFFFF_F000) + 4 * (linear >> 22), 4)
    if not directory & _PRESENT:
        return None
    if directory & _LARGE and cr4 & _CR4_PSE:
        high = (directory >> 13 & 0xFF) << 32  # PSE-36
        return high | directory & 0xFFC0_0000 | linear & 0x003F_FFFF
    page = _entry(memory, (directory & 0xFFFF_F000) + 4 * (linear >> 12 & 0x3FF), 4)
    return page & 0xFFFF_F000 | linear & 0xFFF if page & _PRESENT else None


def _pae(memory: GuestMemory, linear: int, cr3: int) -> int | None:
    pointer = _entry(memory, (cr3 & 0xFFFF_FFE0) + 8 * (linear >> 30), 8)
    if not pointer & _PRESENT:
        return None
    directory = _entry(memory, (pointer & _PAE_FRAME) + 8 * (linear >> 21 & 0x1FF), 8)
    if not directory & _PRESENT:
        return None
    if directory & _LARGE:
        return directory & 0xF_FFFF_FFE0_0000 | linear & 0x001F_FFFF
    page = _entry(memory, (directory & _PAE_FRAME) + 8 * (linear >> 12 & 0x1FF), 8)
    return page & _PAE_FRAME | linear & 0xFFF if page & _PRESENT else None


def _entry(memory: GuestMemory, at: int, size: int) -> int:
    return int.from_bytes(memory.read(at, size), "little")
