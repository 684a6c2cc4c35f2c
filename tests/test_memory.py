"""Guest memory: regions, bounds, both directions, sharing by descriptor, sealing and closing."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.errors import HostError, MachineError, MemoryAccessError
from shardio.memory import HIGH_MEMORY_BASE, LOW_MEMORY_END, GuestMemory, MemoryRegion, parse_size, regions_of

GIB = 1 << 30
SMALL = 0x4000


def test_small_memory_is_one_region():
    with GuestMemory(SMALL) as memory:
        assert memory.regions == (MemoryRegion(0, SMALL, 0),)
        assert memory.size == SMALL


def test_what_does_not_fit_below_3_gib_begins_at_4_gib():
    with GuestMemory(5 * GIB) as memory:
        low, high = MemoryRegion(0, 3 * GIB, 0), MemoryRegion(4 * GIB, 2 * GIB, 3 * GIB)
        assert memory.regions == (low, high)


def test_write_then_read():
    with GuestMemory(SMALL) as memory:
        memory.write(0xFFE, b"abcd")
        assert memory.read(0xFFE, 4) == b"abcd"
        assert memory.read(0, 4) == bytes(4)


def test_both_sides_of_the_hole_are_apart():
    with GuestMemory(4 * GIB) as memory:
        memory.write(LOW_MEMORY_END - 2, b"lo")
        memory.write(HIGH_MEMORY_BASE, b"hi")
        assert memory.read(LOW_MEMORY_END - 2, 2) == b"lo"
        assert memory.read(HIGH_MEMORY_BASE, 2) == b"hi"


OUTSIDE = [(-1, 2), (0, -1), (SMALL - 1, 2), (SMALL, 1), (LOW_MEMORY_END, 1), (1 << 64, 1)]


@pytest.mark.parametrize(("addr", "length"), OUTSIDE)
def test_a_read_outside_names_address_length_and_regions(addr, length):
    with GuestMemory(SMALL) as memory, pytest.raises(MemoryAccessError) as caught:
        memory.read(addr, length)
    assert (caught.value.address, caught.value.length) == (addr, length)
    assert "0x0-0x3fff" in str(caught.value)


@pytest.mark.parametrize("addr", [-1, SMALL - 1, SMALL, LOW_MEMORY_END])
def test_a_write_outside_changes_nothing(addr):
    with GuestMemory(SMALL) as memory:
        with pytest.raises(MemoryAccessError):
            memory.write(addr, b"xy")
        assert memory.read(0, SMALL) == bytes(SMALL)


def test_an_access_cannot_span_the_hole():
    with GuestMemory(4 * GIB) as memory:
        with pytest.raises(MemoryAccessError):
            memory.read(LOW_MEMORY_END - 1, 2)
        with pytest.raises(MemoryAccessError):
            memory.write(LOW_MEMORY_END - 1, b"xy")


def test_a_view_is_the_memory_itself():
    with GuestMemory(SMALL) as memory:
        with memory.view(0x10, 4) as view:
            view[:] = b"view"
        assert memory.read(0x10, 4) == b"view"


def test_the_host_address_of_an_offset_is_that_far_from_the_first():
    with GuestMemory(SMALL) as memory:
        assert memory.host_address(0x1234, 1) - memory.host_address(0, 1) == 0x1234


def test_from_fd_shares_the_bytes_both_ways():
    with GuestMemory(SMALL) as memory, GuestMemory.from_fd(memory.fd, memory.size) as other:
        memory.write(0, b"there")
        other.write(0x100, b"back")
        assert other.read(0, 5) == b"there"
        assert memory.read(0x100, 4) == b"back"


def test_from_fd_of_a_shorter_file_is_refused():
    with GuestMemory(SMALL) as memory, pytest.raises(MemoryAccessError):
        GuestMemory.from_fd(memory.fd, 2 * SMALL)


def test_a_holder_of_the_descriptor_cannot_shrink_the_ram():
    with GuestMemory(SMALL) as memory, pytest.raises(PermissionError):
        os.ftruncate(memory.fd, 0)


@pytest.mark.parametrize("size", [0, -4096, 4095, 4097, 1 << 63, 1 << 100])
def test_a_size_that_is_not_whole_pages_is_refused(size):
    with pytest.raises(MachineError, match="multiple of 4096"):
        GuestMemory(size)


def test_more_than_the_host_can_map_is_a_host_error():
    with pytest.raises(HostError, match="ask for less memory"):
        GuestMemory(1 << 60)


def test_close_twice_and_then_no_access():
    memory = GuestMemory(SMALL)
    memory.close()
    memory.close()
    with pytest.raises(MemoryAccessError):
        memory.read(0, 1)


def test_a_view_outlives_close():
    memory = GuestMemory(SMALL)
    memory.write(0, b"stay")
    view = memory.view(0, 4)
    memory.close()
    assert bytes(view) == b"stay"


@given(st.lists(st.tuples(st.integers(0, SMALL - 1), st.binary(max_size=64)), max_size=20))
def test_it_reads_like_a_bytearray(writes):
    with GuestMemory(SMALL) as memory:
        model = bytearray(SMALL)
        for addr, data in writes:
            cut = data[: SMALL - addr]
            memory.write(addr, cut)
            model[addr : addr + len(cut)] = cut
        assert memory.read(0, SMALL) == bytes(model)


def test_three_gib_are_one_region() -> None:
    assert regions_of(LOW_MEMORY_END) == (MemoryRegion(0, LOW_MEMORY_END, 0),)


def is_no_size(text: str) -> bool:
    try:
        parse_size(text)
    except MachineError:
        return True
    return False


@given(st.integers(min_value=1, max_value=1 << 40), st.sampled_from("KMGT"), st.sampled_from(["", "B", "iB"]))
def test_sizes_are_powers_of_1024(number: int, unit: str, suffix: str) -> None:
    assert parse_size(f"{number}{unit}{suffix}") == number << 10 * ("KMGT".index(unit) + 1)


@given(st.text(alphabet="0123456789xXKMGTiB .-"))
def test_any_text_is_a_positive_size_or_refused(text: str) -> None:
    assert is_no_size(text) or parse_size(text) > 0


@pytest.mark.parametrize("size", [True, 0, -1, "0", "-1", "", "1X", 1.0])
def test_what_is_no_size_is_refused(size: object) -> None:
    with pytest.raises(MachineError, match="size"):
        parse_size(size)  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "holes", "left"), [
    (1 << 20, [], [(0, 1 << 20)]),
    (1 << 20, [range(0xB_8000, 0xB_8FA0)], [(0, 0xB_8000), (0xB_9000, 0x4_7000)]),
    (1 << 20, [range(0xC_0000, 0xC_0001), range(0xA_0000, 0xC_0000)], [(0, 0xA_0000), (0xC_1000, 0x3_F000)]),
    (0xB_0000, [range(0xA_0000, 0xC_0000)], [(0, 0xA_0000)]),
    (0x9_0000, [range(0xA_0000, 0xC_0000)], [(0, 0x9_0000)]),
])  # fmt: skip
def test_holes_are_whole_pages_without_ram(
    size: int, holes: list[range], left: list[tuple[int, int]]
) -> None:
    with GuestMemory(size) as memory:
        memory.open_holes(holes)

        assert [(region.guest_address, region.size) for region in memory.regions] == left
        assert all(region.file_offset == region.guest_address for region in memory.regions)
        for hole in holes:
            with pytest.raises(MemoryAccessError):
                memory.read(hole.start, 1)
            with pytest.raises(MemoryAccessError):
                memory.write(hole.start, b"x")


def test_ram_beside_a_hole_is_where_it_was() -> None:
    with GuestMemory(1 << 20) as memory:
        memory.write(0xC_0000, b"ROM")
        memory.open_holes([range(0xA_0000, 0xC_0000)])

        assert memory.read(0xC_0000, 3) == b"ROM"
        with pytest.raises(MemoryAccessError):
            memory.read(0x9_FFFF, 2)
        with GuestMemory.from_fd(memory.fd, memory.size) as other:
            memory.write(0xC_0003, b"s")
            assert other.read(0xC_0000, 4) == b"ROMs"
