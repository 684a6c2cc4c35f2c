"""Addresses of the two device spaces: port I/O (PIO, 2^16 ports) and memory-mapped I/O (MMIO, 2^64 bytes).

An address is an `int` that knows its space: moving it by an offset keeps its type and never leaves the space,
and the distance of two addresses is a plain `int`. Intervals of addresses are in `shardio.range`.
"""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import ClassVar, Self, SupportsIndex, overload

from shardio.errors import InvalidAddress


class Space(StrEnum):
    """The two address spaces that a device can answer in.

    >>> Space("pio") is Space.PIO, f"{Space.MMIO}_read"
    (True, 'mmio_read')
    """

    PIO = "pio"
    MMIO = "mmio"


class BusAddress(int):
    """What `PioAddress` and `MmioAddress` share; not made by itself.

    Raises `InvalidAddress` wherever a value would be outside the space, and `TypeError` for what is no whole
    number or is an address of the other space.
    """

    __slots__ = ()

    space: ClassVar[Space]
    """The address space."""
    BITS: ClassVar[int]
    """Width of an address in bits."""
    LAST: ClassVar[int]
    """The highest address of the space."""

    def __new__(cls, value: SupportsIndex) -> Self:
        number = operator.index(value)
        try:
            last = cls.LAST
        except AttributeError:
            raise TypeError(f"a {cls.__name__} is of no space: make a PioAddress or a MmioAddress") from None
        if not 0 <= number <= last:
            raise InvalidAddress(int(number), cls.space, last)
        return super().__new__(cls, number)

    @property
    def value(self) -> int:
        """The address as a plain `int`."""
        return int(self)

    def checked_add(self, offset: int) -> Self | None:
        """The address `offset` bytes further, or None when that is outside the space."""
        number = int.__add__(self, self._operand(offset, "sum"))
        return type(self)(number) if 0 <= number <= self.LAST else None

    def __add__(self, offset: int) -> Self:
        return type(self)(int.__add__(self, self._operand(offset, "sum")))

    __radd__ = __add__

    @overload
    def __sub__(self, other: BusAddress) -> int: ...
    @overload
    def __sub__(self, other: int) -> Self | int: ...
    def __sub__(self, other: int) -> Self | int:
        number = int.__sub__(self, self._operand(other, "distance"))
        return number if isinstance(other, BusAddress) else type(self)(number)

    def __rsub__(self, other: int) -> int:
        return int.__rsub__(self, other)

    def _operand(self, other: int, result: str) -> int:
        """A whole number of any kind as an `int`; without this, a float or a numpy number would take over and
        give a `result` that is no address and may lie outside the space.
        """
        if isinstance(other, BusAddress) and other.space is not self.space:
            raise TypeError(f"{self!r} and {other!r} have no {result}: they are of different spaces")
        return operator.index(other)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({int(self):#x})"

    def __str__(self) -> str:
        return f"{int(self):#x}"


class PioAddress(BusAddress):
    """A port number, 0 to 2^16-1 (Intel SDM volume 1, chapter "Input/Output").

    >>> com1 = PioAddress(0x3F8)
    >>> com1 + 5
    PioAddress(0x3fd)
    >>> (com1 + 5) - com1
    5
    >>> PioAddress(0xFFFF).checked_add(1) is None
    True
    >>> PioAddress(0xFFFF) + 1
    Traceback (most recent call last):
    ...
    shardio.errors.InvalidAddress: address 0x10000 is outside the PIO space; use 0x0 to 0xffff
    """

    __slots__ = ()
    space = Space.PIO
    BITS = 16
    LAST = (1 << 16) - 1


class MmioAddress(BusAddress):
    """A guest-physical address of a memory-mapped register, 0 to 2^64-1.

    >>> bar = MmioAddress(0xD000_0000)
    >>> bar + 0x10, bar - 0x10
    (MmioAddress(0xd0000010), MmioAddress(0xcffffff0))
    >>> MmioAddress((1 << 64) - 1).checked_add(1) is None
    True
    """

    __slots__ = ()
    space = Space.MMIO
    BITS = 64
    LAST = (1 << 64) - 1
