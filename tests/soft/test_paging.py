"""Linear addresses by page tables in guest memory: Intel SDM volume 3, 4.3 and 4.4."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shardio.memory import GuestMemory
from shardio.soft.paging import walk

PG, PSE, PAE = 1 << 31, 1 << 4, 1 << 5
TABLES = 0x1000


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory(1 << 20) as made:
        yield made


def put(memory: GuestMemory, at: int, value: int, size: int = 4) -> None:
    memory.write(at, value.to_bytes(size, "little"))


def test_without_paging_it_is_the_same(memory: GuestMemory) -> None:
    assert walk(memory, 0x1_2345_6789, 0, TABLES, PSE) == 0x2345_6789


def test_pages_of_4_kib(memory: GuestMemory) -> None:
    put(memory, TABLES + 4 * 0x300, 0x2001)
    put(memory, 0x2000 + 4 * 5, 0x0A_B003)
    assert walk(memory, 0xC000_5678, PG, TABLES, 0) == 0x0A_B678
    assert walk(memory, 0xC000_6678, PG, TABLES, 0) is None
    assert walk(memory, 0x0000_5678, PG, TABLES, 0) is None


def test_pages_of_4_mib_where_cr4_has_them(memory: GuestMemory) -> None:
    put(memory, TABLES + 4 * 1, 0x0080_0081 | 1 << 13)
    assert walk(memory, 0x0040_1234, PG, TABLES, PSE) == 0x1_0080_1234
    assert walk(memory, 0x0040_1234, PG, TABLES, 0) is None  # the page table would lie beyond RAM


def test_pages_with_pae(memory: GuestMemory) -> None:
    put(memory, TABLES + 8 * 3, 0x2001, 8)
    put(memory, 0x2000 + 8 * 1, 0x3001, 8)
    put(memory, 0x2000 + 8 * 2, 0x1_0020_0081, 8)
    put(memory, 0x3000 + 8 * 7, 0x8000_0000_0004_5001, 8)
    assert walk(memory, 0xC020_7123, PG, TABLES, PAE) == 0x4_5123
    assert walk(memory, 0xC041_2345, PG, TABLES, PAE) == 0x1_0021_2345
    assert walk(memory, 0xC020_8123, PG, TABLES, PAE) is None
    assert walk(memory, 0x0020_7123, PG, TABLES, PAE) is None


def test_tables_that_are_not_in_ram_map_nothing(memory: GuestMemory) -> None:
    assert walk(memory, 0x1000, PG, 0x4000_0000, 0) is None
    assert walk(memory, 0x1000, PG, 0x4000_0000, PAE) is None
