"""The memory map that guests are told."""

from __future__ import annotations

import pytest

from shardio.boot import RAM, RESERVED, MemoryRange, memory_map
from shardio.memory import GuestMemory

HOLE = MemoryRange(0xA0000, 0x60000, RESERVED)


@pytest.mark.parametrize(
    ("size", "ranges"),
    [
        (0x8000, [MemoryRange(0, 0x8000, RAM), HOLE]),
        (1 << 20, [MemoryRange(0, 0xA0000, RAM), HOLE]),
        (2 << 20, [MemoryRange(0, 0xA0000, RAM), HOLE, MemoryRange(1 << 20, 1 << 20, RAM)]),
        (
            4 << 30,
            [
                MemoryRange(0, 0xA0000, RAM),
                HOLE,
                MemoryRange(1 << 20, (3 << 30) - (1 << 20), RAM),
                MemoryRange(4 << 30, 1 << 30, RAM),
            ],
        ),
    ],
)
def test_ram_has_a_hole_below_1_mib(size: int, ranges: list[MemoryRange]) -> None:
    with GuestMemory(size) as memory:
        assert list(memory_map(memory)) == ranges
