"""A bus: which range of one address space belongs to which device.

Ranges never overlap, so the range that may hold an address is the last one whose base is not above it, found
by bisection over a sorted list of bases; the ends and the entries are kept in lists parallel to it, so that a
lookup touches plain ints and allocates nothing. An access lies wholly inside one range or is refused: it is
never split between neighbours, not even between two ranges of one device.

A bus is changed and read by one thread at a time.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Iterator
from copy import copy
from typing import ClassVar, Generic, Self, TypeVar

from shardio.address import BusAddress, MmioAddress, PioAddress
from shardio.errors import DeviceNotFound, DeviceOverlap, InvalidAccessLength, InvalidRange, ShardioError
from shardio.range import BusRange, MmioRange, PioRange

R = TypeVar("R", bound=BusRange[PioAddress] | BusRange[MmioAddress])
D = TypeVar("D")


class Bus(Generic[R, D]):
    """A map from ranges to devices, searched in O(log n); the devices may be any objects.

    `PioBus` and `MmioBus` are the two spaces. A bare `Bus()` is of the space of the first range that is
    registered and keeps to it. Addresses are of that space or plain `int`: one of the other space raises
    `InvalidRange`, and what is no whole number `TypeError`. A copy is a bus of its own with the same devices.

    >>> bus = Bus()
    >>> bus.register(MmioRange(0xD000_0000, 0x1000), "disk")
    >>> bus.register(PioRange(0x3F8, 8), "uart")
    Traceback (most recent call last):
    ...
    shardio.errors.InvalidRange: range of 0x8 bytes at 0x3f8 is not of the MMIO space; register a MmioRange
    """

    range_type: ClassVar[type[PioRange] | type[MmioRange] | None] = None

    def __init__(self) -> None:
        self._range_type: type[PioRange] | type[MmioRange] | None = self.range_type
        # Bases and ends are plain ints: comparing them does not go through the address types' checks. Ends
        # are exclusive, so that one subtraction tells how much of a range is left.
        self._map: tuple[list[int], list[int], list[tuple[R, D]]] = ([], [], [])

    def register(self, range: R, device: D) -> None:  # noqa: A002 (the field's name for it)
        """Put a device at a range.

        Raises `DeviceOverlap` (with both ranges) where a registered range shares an address with it,
        `InvalidRange` where it is of another space; nothing changes then.
        """
        self._require_space(range)
        taken = self.overlapping(range)
        if taken is not None:
            raise DeviceOverlap(range, taken[0])
        _insert(self._map, range, device)

    def deregister(self, addr: int) -> tuple[R, D] | None:
        """Remove the range that holds the address, its base or any other; None where there is none."""
        index = self._find(addr)
        return None if index is None else _remove(self._map, index)

    def device(self, addr: int) -> tuple[R, D] | None:
        """The range that holds the address, and its device; None where there is none."""
        index = self._find(addr)
        return None if index is None else self._map[2][index]

    def check_access(self, addr: int, length: int) -> tuple[R, D]:
        """The range that holds all of `length` bytes from `addr` on, and its device.

        Raises `DeviceNotFound` where no single range holds them all, `InvalidRange` for an empty access and
        one that leaves the address space, `InvalidAccessLength` for more bytes than the space has.
        """
        bases, ends, entries = self._map
        if type(addr) is not int:
            addr = self._number(addr)
        index = bisect_right(bases, addr) - 1
        if index >= 0 and 0 < length <= ends[index] - addr:
            return entries[index]
        raise self._refusal(addr, operator.index(length))

    def overlapping(self, range: R) -> tuple[R, D] | None:  # noqa: A002
        """The first registered range that shares an address with this one, and its device, or None."""
        kind = self._range_type
        if kind is not None and not isinstance(range, kind):
            return None
        bases, ends, entries = self._map
        index = bisect_right(bases, range.base)
        if index and ends[index - 1] > range.base:
            return entries[index - 1]
        if index < len(bases) and bases[index] <= range.last:
            return entries[index]
        return None

    def move(self, addr: int, new_base: int) -> R:
        """Move the range that holds `addr` so that it begins at `new_base`; returns the new range.

        It may overlap its own old place. Raises `DeviceNotFound` where nothing holds `addr`, `InvalidRange`
        where the new place leaves the space, `DeviceOverlap` where it is taken; the range then stays where it
        was.
        """
        index = self._find(addr)
        if index is None:
            raise DeviceNotFound(addr)
        old, device = self._map[2][index]
        new = type(old)(new_base, old.size)
        moved = copy(self)
        _remove(moved._map, index)
        moved.register(new, device)
        # One store: neither an interrupt nor a reader in another thread finds the device nowhere or twice.
        self._map = moved._map
        return new

    def __len__(self) -> int:
        """How many ranges are registered."""
        return len(self._map[2])

    def __iter__(self) -> Iterator[tuple[R, D]]:
        """The ranges with their devices, by ascending address, as they are when the iteration begins."""
        return iter(tuple(self._map[2]))

    def __copy__(self) -> Self:
        copied = type(self)()
        copied._range_type = self._range_type
        bases, ends, entries = self._map
        copied._map = (bases.copy(), ends.copy(), entries.copy())
        return copied

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} range(s)>"

    def _number(self, addr: int) -> int:
        """An address as an `int`; refused where it is none, or of the other space."""
        kind = self._range_type
        if kind is not None and isinstance(addr, BusAddress) and addr.space is not kind.address_type.space:
            raise InvalidRange(addr, 1, f"is not of the {kind.address_type.space.upper()} space",
                               f"give a {kind.address_type.__name__} or an int")
        return int(operator.index(addr))

    def _find(self, addr: int) -> int | None:
        bases, ends, _ = self._map
        if type(addr) is not int:
            addr = self._number(addr)
        index = bisect_right(bases, addr) - 1
        return index if index >= 0 and addr < ends[index] else None

    def _require_space(self, range: R) -> None:  # noqa: A002
        if not isinstance(range, BusRange):
            raise TypeError(f"a bus registers a PioRange or a MmioRange, not a {type(range).__name__}")
        kind = self._range_type
        if kind is None:
            kind = self._range_type = PioRange if isinstance(range, PioRange) else MmioRange
        if not isinstance(range, kind):
            space = kind.address_type.space.upper()
            raise InvalidRange(range.base, range.size, f"is not of the {space} space",
                               f"register a {kind.__name__}")

    def _refusal(self, addr: int, length: int) -> ShardioError:
        kind = self._range_type or MmioRange
        limit = kind.address_type.LAST + 1
        if length > limit:
            return InvalidAccessLength(length, limit)
        kind(addr, length)  # raises for an access that is empty or leaves the space
        return DeviceNotFound(addr, length)


def _insert(where: tuple[list[int], list[int], list[tuple[R, D]]], what: R, device: D) -> None:
    bases, ends, entries = where
    base = int(what.base)
    index = bisect_right(bases, base)
    bases.insert(index, base)
    ends.insert(index, base + what.size)
    entries.insert(index, (what, device))


def _remove(where: tuple[list[int], list[int], list[tuple[R, D]]], index: int) -> tuple[R, D]:
    bases, ends, entries = where
    del bases[index], ends[index]
    return entries.pop(index)


class PioBus(Bus[PioRange, D]):
    """The bus of port I/O.

    >>> bus = PioBus()
    >>> bus.register(PioRange(0x3F8, 8), "uart")
    >>> bus.check_access(0x3F9, 1)
    (PioRange(base=PioAddress(0x3f8), size=8), 'uart')
    >>> bus.check_access(0x3FF, 2)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    shardio.errors.DeviceNotFound: no registered range holds the 2 byte(s) at 0x3ff; register a range ...
    >>> bus.deregister(0x3FA)
    (PioRange(base=PioAddress(0x3f8), size=8), 'uart')
    """

    range_type = PioRange


class MmioBus(Bus[MmioRange, D]):
    """The bus of memory-mapped I/O.

    >>> bus = MmioBus()
    >>> bus.register(MmioRange(0xD000_0000, 0x1000), "bar")
    >>> print(bus.move(0xD000_0000, 0xE000_0000))
    MMIO [0xe0000000, 0xe0000fff]
    >>> bus.device(0xD000_0000) is None, len(bus)
    (True, 1)
    """

    range_type = MmioRange
