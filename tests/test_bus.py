"""The bus: against a dict of every address of a small space, and at the edges of the real ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shardio import (
    Bus,
    DeviceNotFound,
    DeviceOverlap,
    InvalidAccessLength,
    InvalidRange,
    MmioAddress,
    MmioBus,
    MmioRange,
    PioAddress,
    PioBus,
    PioRange,
)
from tests.models import attempt

# The model keeps a dict of these addresses; they end where the port space ends.
FIRST, LAST = 0xFFD0, 0xFFFF
addresses = st.integers(FIRST, LAST)
sizes = st.integers(1, 10)


class Model:
    """The bus as a dict from each single address to its (range, device)."""

    def __init__(self) -> None:
        self.at: dict[int, tuple[PioRange, object]] = {}

    def place(self, range_: PioRange, device: object) -> None:
        self.at.update(dict.fromkeys(range(range_.base, int(range_.last) + 1), (range_, device)))

    def remove(self, range_: PioRange) -> None:
        self.at = {addr: entry for addr, entry in self.at.items() if entry[0] != range_}

    def holders(self, range_: PioRange) -> list[PioRange]:
        return [self.at[addr][0] for addr in range(range_.base, int(range_.last) + 1) if addr in self.at]

    def register(self, range_: PioRange, device: object) -> None:
        for holder in self.holders(range_):
            raise DeviceOverlap(range_, holder)
        self.place(range_, device)

    def deregister(self, addr: int) -> object:
        entry = self.at.get(addr)
        if entry is not None:
            self.remove(entry[0])
        return entry

    def move(self, addr: int, new_base: int) -> PioRange:
        if addr not in self.at:
            raise DeviceNotFound(addr)
        old, device = self.at[addr]
        new = PioRange(new_base, old.size)
        for holder in self.holders(new):
            if holder != old:
                raise DeviceOverlap(new, holder)
        self.remove(old)
        self.place(new, device)
        return new

    def check_access(self, addr: int, length: int) -> object:
        PioRange(addr, length)
        touched = {self.at.get(a) for a in range(addr, addr + length)}
        if len(touched) > 1 or None in touched:
            raise DeviceNotFound(addr, length)
        return touched.pop()


class BusAgainstDict(RuleBasedStateMachine):
    """The same calls on a `PioBus` and on the model: same results, same errors with the same values."""

    def __init__(self) -> None:
        super().__init__()
        self.bus: PioBus[object] = PioBus()
        self.model = Model()

    @rule(base=addresses, size=sizes)
    def register(self, base: int, size: int) -> None:
        device = object()
        did = attempt(lambda: self.bus.register(PioRange(base, size), device))
        assert did == attempt(lambda: self.model.register(PioRange(base, size), device))

    @rule(addr=addresses)
    def deregister(self, addr: int) -> None:
        assert self.bus.deregister(addr) == self.model.deregister(addr)

    @rule(addr=addresses, new_base=addresses)
    def move(self, addr: int, new_base: int) -> None:
        did = attempt(lambda: self.bus.move(addr, new_base))
        assert did == attempt(lambda: self.model.move(addr, new_base))

    @rule(addr=addresses, length=st.integers(-1, 12))
    def check_access(self, addr: int, length: int) -> None:
        did = attempt(lambda: self.bus.check_access(addr, length))
        assert did == attempt(lambda: self.model.check_access(addr, length))

    @rule(addr=addresses)
    def device(self, addr: int) -> None:
        assert self.bus.device(addr) == self.bus.device(PioAddress(addr)) == self.model.at.get(addr)

    @rule(base=addresses, size=sizes)
    def overlapping(self, base: int, size: int) -> None:
        wanted = PioRange(base, min(size, LAST + 1 - base))
        found = self.bus.overlapping(wanted)
        assert (found and found[0]) == next(iter(self.model.holders(wanted)), None)

    @invariant()
    def order_and_length(self) -> None:
        entries = sorted(set(self.model.at.values()), key=lambda entry: entry[0])
        assert list(self.bus) == entries
        assert len(self.bus) == len(entries)


BusAgainstDict.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestBusAgainstDict = BusAgainstDict.TestCase


@pytest.mark.parametrize(
    ("bus_type", "whole"), [(PioBus, PioRange(0, 1 << 16)), (MmioBus, MmioRange(0, 1 << 64))]
)
def test_whole_space_is_one_access_and_no_more(bus_type: type[Bus[Any, str]], whole: Any) -> None:
    bus = bus_type()
    bus.register(whole, "all")
    assert bus.check_access(0, whole.size) == (whole, "all")
    with pytest.raises(InvalidAccessLength) as refused:
        bus.check_access(0, whole.size + 1)
    assert (refused.value.length, refused.value.limit) == (whole.size + 1, whole.size)
    with pytest.raises(InvalidRange):
        bus.check_access(whole.last, 2)
    with pytest.raises(InvalidRange):
        bus.check_access(5, 0)
    with pytest.raises(DeviceOverlap):
        bus.register(type(whole).unit(whole.last), "last")


@given(base=st.integers(0, (1 << 64) - 1), size=st.integers(1, 64), offset=st.integers(0, 63))
def test_interior_addresses_anywhere_in_2_to_the_64(base: int, size: int, offset: int) -> None:
    bus: MmioBus[str] = MmioBus()
    range_ = MmioRange(min(base, (1 << 64) - size), size)
    bus.register(range_, "bar")
    inside = MmioAddress(range_.base + offset % size)
    assert bus.device(inside) == (range_, "bar")
    assert bus.check_access(inside, range_.last - inside + 1) == (range_, "bar")
    assert bus.deregister(inside) == (range_, "bar")
    assert bus.device(inside) is None


def test_access_across_two_adjacent_ranges_is_not_found() -> None:
    bus: PioBus[str] = PioBus()
    bus.register(PioRange(0x10, 4), "same")
    bus.register(PioRange(0x14, 4), "same")
    with pytest.raises(DeviceNotFound):
        bus.check_access(0x12, 4)
    with pytest.raises(DeviceNotFound):
        bus.check_access(0x10, 8)


def test_addresses_outside_the_space_hold_nothing() -> None:
    bus: PioBus[str] = PioBus()
    bus.register(PioRange(0, 1 << 16), "all")
    assert bus.device(1 << 16) is None
    assert bus.device(-1) is None
    assert bus.deregister(1 << 16) is None
    with pytest.raises(InvalidRange):
        bus.check_access(-1, 1)
    with pytest.raises(InvalidRange):
        bus.check_access(1 << 16, 1)


def test_bus_refuses_a_range_of_the_other_space() -> None:
    bus: Bus[Any, str] = PioBus()
    with pytest.raises(InvalidRange, match="not of the PIO space"):
        bus.register(MmioRange(0, 4), "bar")
    assert len(bus) == 0


def test_bare_bus_takes_the_space_of_its_first_range_and_keeps_it() -> None:
    bus: Bus[Any, str] = Bus()
    bus.register(PioRange(0, 4), "port")
    bus.deregister(0)
    with pytest.raises(InvalidRange, match="not of the PIO space"):
        bus.register(MmioRange(0, 4), "bar")
    with pytest.raises(InvalidAccessLength):
        bus.check_access(0, (1 << 16) + 1)


def test_iteration_survives_a_move() -> None:
    bus: MmioBus[str] = MmioBus()
    bus.register(MmioRange(0x1000, 0x1000), "a")
    bus.register(MmioRange(0x2000, 0x1000), "b")
    walk = iter(bus)
    assert next(walk)[1] == "a"
    bus.move(0x1000, 0x9000)
    assert next(walk)[1] == "b"
    assert [device for _, device in bus] == ["b", "a"]


def test_iteration_survives_deregistration() -> None:
    bus: MmioBus[str] = MmioBus()
    for base in (0x1000, 0x2000, 0x3000):
        bus.register(MmioRange(base, 0x1000), hex(base))
    went = [bus.deregister(range_.last) for range_, _ in bus]
    assert [entry[1] for entry in went if entry] == ["0x1000", "0x2000", "0x3000"]
    assert len(bus) == 0


def test_only_a_range_can_be_registered() -> None:
    bus: MmioBus[str] = MmioBus()
    with pytest.raises(TypeError, match="not a tuple"):
        bus.register((0x1000, 0x1000), "a")  # type: ignore[arg-type]
    assert len(bus) == 0


def test_refused_move_leaves_everything_in_place() -> None:
    bus: MmioBus[str] = MmioBus()
    bus.register(MmioRange(0x1000, 0x1000), "a")
    bus.register(MmioRange(0x2000, 0x1000), "b")
    before = list(bus)
    with pytest.raises(DeviceOverlap):
        bus.move(0x1000, 0x2800)
    with pytest.raises(InvalidRange):
        bus.move(0x1000, (1 << 64) - 0x800)
    assert list(bus) == before


def test_devices_are_neither_hashed_nor_compared() -> None:
    bus: PioBus[object] = PioBus()
    device: list[int] = []
    bus.register(PioRange(0, 4), device)
    bus.register(PioRange(4, 4), device)
    assert bus.check_access(5, 1)[1] is device


QUESTIONS: list[Callable[[Bus[Any, Any], Any], object]] = [
    lambda bus, addr: bus.device(addr),
    lambda bus, addr: bus.deregister(addr),
    lambda bus, addr: bus.check_access(addr, 1),
    lambda bus, addr: bus.move(addr, 0),
]


@pytest.mark.parametrize("ask", QUESTIONS)
def test_an_address_of_the_other_space_is_refused(ask: Callable[[Bus[Any, Any], Any], object]) -> None:
    bus: MmioBus[str] = MmioBus()
    bus.register(MmioRange(0x3F8, 8), "a")
    with pytest.raises(InvalidRange, match="not of the MMIO space; give a MmioAddress"):
        ask(bus, PioAddress(0x3F8))
    assert len(bus) == 1


@pytest.mark.parametrize("ask", QUESTIONS)
def test_an_address_that_is_no_whole_number_is_a_type_error(
    ask: Callable[[Bus[Any, Any], Any], object],
) -> None:
    bus: PioBus[str] = PioBus()
    bus.register(PioRange(0x3F8, 8), "a")
    with pytest.raises(TypeError):
        ask(bus, 1016.5)
    assert len(bus) == 1


def test_a_range_of_the_other_space_overlaps_nothing() -> None:
    bus: Bus[Any, str] = MmioBus()
    bus.register(MmioRange(0, 0x1000), "a")
    assert bus.overlapping(PioRange(0, 1)) is None


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_is_a_bus_of_its_own(duplicate: Callable[[Any], Any]) -> None:
    bus: Bus[Any, str] = Bus()
    bus.register(PioRange(0, 4), "a")
    other = duplicate(bus)
    other.register(PioRange(4, 4), "b")
    other.deregister(0)
    assert list(bus) == [(PioRange(0, 4), "a")]
    assert list(other) == [(PioRange(4, 4), "b")]
    with pytest.raises(InvalidRange):
        other.register(MmioRange(0, 4), "c")


def test_an_access_as_long_as_the_space_is_no_longer_than_it() -> None:
    bus: PioBus[str] = PioBus()

    with pytest.raises(DeviceNotFound):
        bus.check_access(0, 0x10000)
    with pytest.raises(InvalidAccessLength):
        bus.check_access(0, 0x10001)
