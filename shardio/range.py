"""Ranges: non-empty intervals of one address space, as a device occupies them on a bus.

A range that is empty or runs past the end of its space cannot be constructed, so nothing below has to check
again. The whole space can be one range, so sizes go up to 2^16 ports or 2^64 bytes.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from functools import total_ordering
from typing import ClassVar, Generic, Self, TypeVar

from shardio.address import BusAddress, MmioAddress, PioAddress
from shardio.errors import InvalidRange

A = TypeVar("A", bound=BusAddress)


@total_ordering
@dataclass(frozen=True, slots=True)
class BusRange(Generic[A]):
    """What `PioRange` and `MmioRange` share; not made by itself.

    `base` is the first address, `size` the number of addresses, `last` the last address (inclusive). A plain
    `int` base is taken as an address of the range's space. Two ranges are equal when they are of the same
    space and their bases and sizes are equal; they sort by base. Raises `InvalidRange`, and `TypeError` for
    what is no whole number.
    """

    address_type: ClassVar[type[BusAddress]]

    base: A
    size: int
    last: A = field(init=False, repr=False, compare=False)

    def __init__(self, base: A | int, size: int) -> None:
        try:
            kind = self.address_type
        except AttributeError:
            name = type(self).__name__
            raise TypeError(f"a {name} is of no space: make a PioRange or a MmioRange") from None
        size = operator.index(size)
        if isinstance(base, BusAddress) and not isinstance(base, kind):
            raise InvalidRange(base, size, f"has a base of the {base.space.upper()} space",
                               f"give a {kind.__name__} or an int")
        if size <= 0:
            raise InvalidRange(base, size, "is empty", "give a size of at least 1")
        if base < 0 or int(base) + size - 1 > kind.LAST:
            raise InvalidRange(base, size, f"leaves the {kind.space.upper()} space",
                               f"the last address is {kind.LAST:#x}")
        # Both ends have just been checked: the address type need not check them again.
        first, last = (int.__new__(kind, number) for number in (operator.index(base), int(base) + size - 1))
        object.__setattr__(self, "base", first)
        object.__setattr__(self, "size", int(size))
        object.__setattr__(self, "last", last)

    @classmethod
    def unit(cls, base: A | int) -> Self:
        """The range of the one address `base`."""
        return cls(base, 1)

    def overlaps(self, other: BusRange[A]) -> bool:
        """Whether the two ranges share an address. Ranges of different spaces never do."""
        return (self.address_type is other.address_type
                and self.base <= other.last and other.base <= self.last)

    def __contains__(self, item: object) -> bool:
        """Whether an address, or a whole range, lies inside."""
        if isinstance(item, BusRange):
            return (self.address_type is item.address_type
                    and bool(self.base <= item.base) and bool(item.last <= self.last))
        if isinstance(item, BusAddress) and not isinstance(item, self.address_type):
            return False
        try:
            return self.base <= operator.index(item) <= self.last  # type: ignore[arg-type]
        except TypeError:  # no whole number is no address
            return False

    def __lt__(self, other: Self) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return (self.base, self.size) < (other.base, other.size)

    def __str__(self) -> str:
        return f"{self.address_type.space.upper()} [{self.base}, {self.last}]"


class PioRange(BusRange[PioAddress]):
    """Consecutive ports.

    >>> com1 = PioRange(0x3F8, 8)
    >>> com1.last, 0x3FD in com1, 0x400 in com1
    (PioAddress(0x3ff), True, False)
    >>> com1.overlaps(PioRange(0x3FF, 2)), com1.overlaps(PioRange.unit(0x400))
    (True, False)
    >>> print(PioRange(0, 0x10000))
    PIO [0x0, 0xffff]
    >>> PioRange(0xFFFF, 2)
    Traceback (most recent call last):
    ...
    shardio.errors.InvalidRange: range of 0x2 bytes at 0xffff leaves the PIO space; the last address is 0xffff
    """

    __slots__ = ()
    address_type = PioAddress


class MmioRange(BusRange[MmioAddress]):
    """Consecutive guest-physical byte addresses.

    >>> MmioRange(0xD000_0000, 0x1000)
    MmioRange(base=MmioAddress(0xd0000000), size=4096)
    >>> MmioRange(0, 1 << 64).last
    MmioAddress(0xffffffffffffffff)
    """

    __slots__ = ()
    address_type = MmioAddress
