"""What a device can own: address ranges, interrupts, a MAC address, KVM memory slots.

A resource is a frozen value that cannot be constructed wrong; what is no number where one belongs is a
`TypeError`. The variants are attributes of `Resource` too,
so `Resource.LegacyIrq(4)` and `LegacyIrq(4)` are the same.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from shardio.errors import InvalidResource
from shardio.range import MmioRange, PioRange

U32_MAX = (1 << 32) - 1
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class MsiIrqType(Enum):
    """The kind of a message-signalled interrupt: PCI MSI, PCI MSI-X, or of no bus (generic).

    >>> [ty.value for ty in MsiIrqType]
    ['PCI MSI', 'PCI MSI-X', 'generic MSI']
    """

    PCI_MSI = "PCI MSI"
    PCI_MSIX = "PCI MSI-X"
    GENERIC_MSI = "generic MSI"


@dataclass(frozen=True)
class Resource:
    """Base of the resource variants.

    >>> uart = [Resource.PioAddressRange(0x3F8, 8), Resource.LegacyIrq(4)]
    >>> uart[0].range
    PioRange(base=PioAddress(0x3f8), size=8)
    >>> Resource.MmioAddressRange(base=0xD000_0000, size=0)
    Traceback (most recent call last):
    ...
    shardio.errors.InvalidRange: range of 0x0 bytes at 0xd0000000 is empty; give a size of at least 1
    """

    PioAddressRange: ClassVar[type[PioAddressRange]]
    MmioAddressRange: ClassVar[type[MmioAddressRange]]
    LegacyIrq: ClassVar[type[LegacyIrq]]
    MsiIrq: ClassVar[type[MsiIrq]]
    MacAddress: ClassVar[type[MacAddress]]
    KvmMemSlot: ClassVar[type[KvmMemSlot]]


@dataclass(frozen=True)
class PioAddressRange(Resource):
    """`size` ports from `base` on. Raises `InvalidRange`.

    >>> print(PioAddressRange(base=0x3F8, size=8).range)
    PIO [0x3f8, 0x3ff]
    """

    base: int
    size: int

    def __post_init__(self) -> None:
        PioRange(self.base, self.size)

    @property
    def range(self) -> PioRange:
        """The same as a range for a bus."""
        return PioRange(self.base, self.size)


@dataclass(frozen=True)
class MmioAddressRange(Resource):
    """`size` bytes of guest-physical addresses from `base` on. Raises `InvalidRange`.

    >>> print(MmioAddressRange(base=0xD000_0000, size=0x1000).range)
    MMIO [0xd0000000, 0xd0000fff]
    """

    base: int
    size: int

    def __post_init__(self) -> None:
        MmioRange(self.base, self.size)

    @property
    def range(self) -> MmioRange:
        """The same as a range for a bus."""
        return MmioRange(self.base, self.size)


@dataclass(frozen=True)
class LegacyIrq(Resource):
    """One line of the interrupt controllers (a GSI, 32 bits). Raises `InvalidResource`.

    >>> LegacyIrq(-1)
    Traceback (most recent call last):
    ...
    shardio.errors.InvalidResource: legacy IRQ: -1 is not a 32-bit unsigned number
    """

    irq: int

    def __post_init__(self) -> None:
        _require_u32("legacy IRQ", self.irq)


@dataclass(frozen=True)
class MsiIrq(Resource):
    """`size` consecutive message-signalled interrupts (GSIs, 32 bits) of type `ty` from `base` on.

    Raises `InvalidResource`.

    >>> MsiIrq(MsiIrqType.PCI_MSI, base=24, size=0)
    Traceback (most recent call last):
    ...
    shardio.errors.InvalidResource: PCI MSI: 0 interrupts; give at least 1
    """

    ty: MsiIrqType
    base: int
    size: int

    def __post_init__(self) -> None:
        if self.ty not in tuple(MsiIrqType):
            known = ", ".join(map(str, MsiIrqType))
            raise InvalidResource(f"interrupt type {self.ty!r}", f"use one of {known}")
        _require_u32(f"{self.ty.value} base", self.base)
        if operator.index(self.size) < 1:
            raise InvalidResource(self.ty.value, f"{self.size} interrupts; give at least 1")
        _require_u32(f"{self.ty.value} last", self.base + self.size - 1)


@dataclass(frozen=True)
class MacAddress(Resource):
    """A network interface's hardware address, six hexadecimal octets with colons. Raises `InvalidResource`.

    >>> MacAddress("52:54:00:12:34:56").address
    '52:54:00:12:34:56'
    """

    address: str

    def __post_init__(self) -> None:
        if not isinstance(self.address, str) or not _MAC.fullmatch(self.address.lower()):
            raise InvalidResource(f"MAC address {self.address!r}", "write it as 52:54:00:12:34:56")


@dataclass(frozen=True)
class KvmMemSlot(Resource):
    """One index for KVM_SET_USER_MEMORY_REGION (32 bits). Raises `InvalidResource`.

    >>> Resource.KvmMemSlot(3).slot
    3
    """

    slot: int

    def __post_init__(self) -> None:
        _require_u32("KVM memory slot", self.slot)


Resource.PioAddressRange = PioAddressRange
Resource.MmioAddressRange = MmioAddressRange
Resource.LegacyIrq = LegacyIrq
Resource.MsiIrq = MsiIrq
Resource.MacAddress = MacAddress
Resource.KvmMemSlot = KvmMemSlot


def _require_u32(what: str, value: int) -> None:
    if not 0 <= operator.index(value) <= U32_MAX:
        raise InvalidResource(what, f"{value} is not a 32-bit unsigned number")
