"""Addresses and ranges: types kept, edges of the spaces, and set semantics against explicit sets."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio import (
    BusAddress,
    BusRange,
    InvalidAddress,
    InvalidRange,
    MmioAddress,
    MmioRange,
    PioAddress,
    PioRange,
    Space,
)

SPACES = [(PioAddress, PioRange, Space.PIO, 1 << 16), (MmioAddress, MmioRange, Space.MMIO, 1 << 64)]
spaces = pytest.mark.parametrize(("address", "range_type", "space", "size"), SPACES)

# Close to both edges of each space, and anywhere between them.
ports = st.integers(0, 8) | st.integers(0xFFF8, 0xFFFF) | st.integers(0, 0xFFFF)
memory = st.integers(0, 8) | st.integers((1 << 64) - 8, (1 << 64) - 1) | st.integers(0, (1 << 64) - 1)
offsets = st.integers(-16, 16) | st.integers(-(1 << 65), 1 << 65)


@spaces
def test_address_accepts_exactly_its_space(
    address: type[BusAddress], range_type: type, space: Space, size: int
) -> None:
    assert (address(0), address(size - 1)) == (0, size - 1)
    assert address.space is space
    assert address.LAST == size - 1 == (1 << address.BITS) - 1


@spaces
@pytest.mark.parametrize("outside", [-1, 0])
def test_address_outside_its_space_is_refused_with_its_value(
    address: type[BusAddress], range_type: type, space: Space, size: int, outside: int
) -> None:
    value = outside if outside < 0 else size
    with pytest.raises(InvalidAddress) as refused:
        address(value)
    assert (refused.value.value, refused.value.space) == (value, space)


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: BusAddress(5), "a BusAddress is of no space: make a PioAddress or a MmioAddress"),
        (lambda: BusRange(5, 1), "a BusRange is of no space: make a PioRange or a MmioRange"),
        (lambda: BusRange.unit(5), "a BusRange is of no space"),
    ],
)
def test_what_both_spaces_share_is_not_made_by_itself(make: Callable[[], object], hint: str) -> None:
    with pytest.raises(TypeError, match=hint):
        make()


@given(value=ports, offset=offsets)
def test_pio_addition_keeps_the_type_or_is_refused(value: int, offset: int) -> None:
    check_addition(PioAddress, value, offset)


@given(value=memory, offset=offsets)
def test_mmio_addition_keeps_the_type_or_is_refused(value: int, offset: int) -> None:
    check_addition(MmioAddress, value, offset)


def check_addition(address: type[BusAddress], value: int, offset: int) -> None:
    """Exactly the sums inside the space are addresses of it; `checked_add` and `+` agree, on either side."""
    start = address(value)
    total = value + offset
    expected = [(total, address)] * (0 <= total <= address.LAST)
    assert [(moved, type(moved)) for moved in [start.checked_add(offset)] if moved is not None] == expected
    assert [(moved, type(moved)) for moved in sums(start, offset)] == expected * 2


def sums(start: BusAddress, offset: int) -> list[int]:
    """`start + offset` and `offset + start`, without those that are refused."""
    found: list[int] = []
    with suppress(InvalidAddress):
        found.append(start + offset)
    with suppress(InvalidAddress):
        found.append(offset + start)
    return found


@given(a=memory, b=memory)
def test_difference_of_addresses_is_a_plain_int(a: int, b: int) -> None:
    difference = MmioAddress(a) - MmioAddress(b)
    assert (difference, type(difference)) == (a - b, int)
    assert type(a - MmioAddress(b)) is int


def test_addresses_of_different_spaces_have_no_sum() -> None:
    with pytest.raises(TypeError, match="different spaces"):
        PioAddress(1) + MmioAddress(2)
    with pytest.raises(TypeError, match="different spaces"):
        MmioAddress(1) + PioAddress(2)


def test_subtracting_an_offset_keeps_the_type() -> None:
    assert repr(PioAddress(0x3FD) - 5) == "PioAddress(0x3f8)"
    with pytest.raises(InvalidAddress):
        PioAddress(4) - 5


def test_addresses_of_different_spaces_have_no_distance() -> None:
    with pytest.raises(TypeError, match="different spaces"):
        MmioAddress(5) - PioAddress(3)


def test_addresses_of_different_spaces_have_no_checked_sum() -> None:
    with pytest.raises(TypeError, match="different spaces"):
        PioAddress(1).checked_add(MmioAddress(2))


class Number:
    """A whole number that is no `int`, as numpy's are."""

    def __index__(self) -> int:
        return 2

    def __radd__(self, other: object) -> str:
        return "taken over"

    __rsub__ = __radd__


def test_an_offset_of_any_integer_type_gives_an_address() -> None:
    offset: Any = Number()
    moved = (PioAddress(8) + offset, PioAddress(8) - offset, PioAddress(8).checked_add(offset))
    assert list(map(repr, moved)) == ["PioAddress(0xa)", "PioAddress(0x6)", "PioAddress(0xa)"]
    with pytest.raises(InvalidAddress):
        PioAddress(0xFFFF) + offset
    with pytest.raises(InvalidAddress):
        PioAddress(1) - offset


@pytest.mark.parametrize("offset", [1.5, "1", None])
def test_an_offset_that_is_no_whole_number_is_a_type_error(offset: Any) -> None:
    for move in (PioAddress.__add__, PioAddress.__sub__, PioAddress.checked_add):
        with pytest.raises(TypeError, match="integer"):
            move(PioAddress(8), offset)


class Bar(MmioAddress):
    """An address type of a user's own."""


def test_addresses_of_one_space_have_a_distance_whatever_their_types() -> None:
    assert (Bar(8) - MmioAddress(6), MmioAddress(8) - Bar(6)) == (2, 2)
    assert type(Bar(8) - MmioAddress(6)) is int
    assert type(Bar(8) + 1) is Bar


@pytest.mark.parametrize("value", [1.0, "0x3f8", None])
def test_address_of_something_else_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError):
        PioAddress(value)  # type: ignore[arg-type]


def test_address_texts_and_copies() -> None:
    port = PioAddress(0x3F8)
    assert (repr(port), str(port), f"{port:#06x}") == ("PioAddress(0x3f8)", "0x3f8", "0x03f8")
    assert port.value == 1016
    assert type(port.value) is int
    assert type(pickle.loads(pickle.dumps(port))) is PioAddress


@spaces
def test_whole_space_is_one_range(
    address: type[BusAddress], range_type: type[BusRange], space: Space, size: int
) -> None:
    whole = range_type(0, size)
    assert (whole.base, whole.size, whole.last) == (0, size, size - 1)
    assert type(whole.base) is type(whole.last) is address
    assert address(0) in whole
    assert address(size - 1) in whole
    assert size not in whole


@spaces
@pytest.mark.parametrize("excess", [0, 1, 1 << 70])
def test_range_that_leaves_the_space_is_refused(
    address: type[BusAddress], range_type: type[BusRange], space: Space, size: int, excess: int
) -> None:
    assert range_type(size - 4, 4).last == size - 1
    with pytest.raises(InvalidRange) as refused:
        range_type(size - 4, 5 + excess)
    assert (refused.value.base, refused.value.size) == (size - 4, 5 + excess)


@spaces
@pytest.mark.parametrize(("base", "length"), [(0, 0), (5, 0), (5, -1), (-1, 4)])
def test_empty_or_negative_range_is_refused(
    address: type[BusAddress], range_type: type[BusRange], space: Space, size: int, base: int, length: int
) -> None:
    with pytest.raises(InvalidRange):
        range_type(base, length)


@pytest.mark.parametrize("size", [2.0, 2.5, "2", None])
def test_range_of_a_size_that_is_no_whole_number_is_a_type_error(size: Any) -> None:
    with pytest.raises(TypeError):
        MmioRange(0x1000, size)


def test_range_with_a_base_of_the_other_space_is_refused() -> None:
    with pytest.raises(InvalidRange, match="MMIO space; give a PioAddress"):
        PioRange(MmioAddress(0x10), 4)
    with pytest.raises(InvalidRange, match="PIO space; give a MmioAddress"):
        MmioRange(PioAddress(0x10), 4)


@given(a=st.integers(0, 12), n=st.integers(1, 6), b=st.integers(0, 12), m=st.integers(1, 6))
def test_overlap_and_membership_are_those_of_sets(a: int, n: int, b: int, m: int) -> None:
    first, second = PioRange(a, n), PioRange(b, m)
    firsts, seconds = set(range(a, a + n)), set(range(b, b + m))
    assert first.overlaps(second) is second.overlaps(first) is bool(firsts & seconds)
    assert (second in first) is (seconds <= firsts)
    assert {port for port in range(20) if port in first} == firsts


def test_equality_is_of_the_whole_range_and_space() -> None:
    assert PioRange(8, 4) == PioRange(8, 4)
    assert PioRange(8, 4) != PioRange(8, 5)
    assert PioRange(8, 4) != PioRange(9, 4)
    assert PioRange(8, 4) != MmioRange(8, 4)
    assert len({PioRange(8, 4), PioRange(8, 4), PioRange(8, 5), MmioRange(8, 4)}) == 3


def test_ranges_of_different_spaces_share_nothing() -> None:
    ports, memory = PioRange(0, 16), MmioRange(0, 16)
    assert not ports.overlaps(memory)  # type: ignore[arg-type]
    assert memory not in ports
    assert MmioAddress(3) not in ports
    assert PioAddress(3) in ports
    assert 3 in ports
    assert Number() in PioRange(2, 1)
    assert Number() not in PioRange(3, 1)
    assert "3" not in ports


def test_unit_range_and_order_and_copies() -> None:
    assert PioRange.unit(0xFFFF) == PioRange(0xFFFF, 1)
    low, wide, high = PioRange(2, 1), PioRange(2, 9), PioRange(4, 1)
    assert sorted([high, wide, low]) == [low, wide, high]
    assert low <= wide <= wide < high
    assert high >= wide > low
    assert pickle.loads(pickle.dumps(MmioRange(8, 4))) == MmioRange(8, 4)


def test_range_is_frozen() -> None:
    with pytest.raises(AttributeError):
        PioRange(8, 4).size = 5  # type: ignore[misc]


@pytest.mark.parametrize("base", [1.0, "0x3f8", None])
@pytest.mark.parametrize("kind", [PioRange, MmioRange])
def test_a_range_begins_at_a_whole_number(kind: type[PioRange] | type[MmioRange], base: object) -> None:
    with pytest.raises(TypeError):
        kind(base, 8)  # type: ignore[arg-type]
