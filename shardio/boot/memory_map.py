"""The memory map that a loader hands over: what e820 (ACPI 6.5, chapter 15) tells of a PC."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from shardio.memory import GuestMemory

RAM: Final = 1
RESERVED: Final = 2
HOLE: Final = range(0xA_0000, 0x10_0000)
"""Of a PC, below 1 MiB: VGA memory, option ROMs, and where tables of the firmware are."""


class MemoryRange(NamedTuple):
    """`size` bytes from guest address `start`; `kind` is an e820 type: `RAM` or `RESERVED`."""

    start: int
    size: int
    kind: int


def memory_map(memory: GuestMemory) -> tuple[MemoryRange, ...]:
    """The ranges in address order: RAM, with the hole below 1 MiB reserved."""
    parts = [MemoryRange(HOLE.start, len(HOLE), RESERVED)]
    for region in memory.regions:
        for start, end in (
            (region.guest_address, min(region.end, HOLE.start)),
            (max(region.guest_address, HOLE.stop), region.end),
        ):
            if start < end:
                parts.append(MemoryRange(start, end - start, RAM))
    return tuple(sorted(parts))


def packed(memory: GuestMemory, form: str) -> bytes:
    """The map as entries of the `struct` format `form` over start, size and kind."""
    return b"".join(struct.pack(form, *part) for part in memory_map(memory))
