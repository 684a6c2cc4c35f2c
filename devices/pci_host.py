"""`PciHost`: PCI configuration mechanism 1 at ports 0xCF8 and 0xCFC, and the host bridge that firmware looks
for.

Source: PCI Local Bus Specification 3.0, section 3.2.2.3.2; the reset control register at 0xCF9 is the
PIIX3's.

>>> pci = PciHost()
>>> pci.write(0, 4, 0x8000_0000)
>>> hex(pci.read(4, 4))
'0x12378086'
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from shardio.device import DeviceHost, MutDevicePio
from shardio.devices.pci_config import HEADER_TYPE, PciConfig
from shardio.errors import DeviceOptionError

ADDRESS = 0
RESET_CONTROL = 1
DATA = 4

AREA_BYTES = 8
"""Of memory that outlives the shard: the address register, with a bit above it once it was written."""

_ENABLE = 0x8000_0000
_ADDRESS_BITS = 0x80FF_FFFC
_WRITTEN = 1 << 32
_MULTI_FUNCTION = 0x80
_RESET_CPU = 0x04
_RESET_KEPT = 0x02


class PciFunction(Protocol):
    """What answers for a function: `PciConfig`, or anything with its two methods."""

    def config_read(self, register: int, size: int) -> int:
        """`size` (1, 2 or 4) bytes at `register` (0 to 255), little-endian."""

    def config_write(self, register: int, size: int, value: int) -> None:
        """Take `size` bytes for `register`."""


def bdf(bus: int, device: int, function: int = 0) -> int:
    """The 16-bit number of a function: bus (8 bits), device (5), function (3).

    >>> hex(bdf(0, 3, 1))
    '0x19'
    """
    return bus << 8 | device << 3 | function


class PciHostState(msgspec.Struct):
    """The address and reset registers, and the configuration bytes of each `PciConfig` by its number."""

    address: int
    reset_control: int
    functions: dict[int, bytes]


class PciHost(MutDevicePio):
    """The 8 ports from 0xCF8: a 32-bit address, then 4 bytes of data of any width; byte 1 is the reset
    control.

    At 00:00.0 sits the i440FX bridge 8086:1237, subsystem 1af4:1100; what is not there reads as all ones.
    """

    compatible = "pci-host-cam-generic"
    pio_size = 8
    persistent, state_type = 1 << 14, PciHostState
    persistent_area = AREA_BYTES
    reads_change = False
    unguarded = frozenset((ADDRESS,))
    """Written before each access of a configuration: one word of the area, which does not mind being written
    again.
    """

    def __init__(self) -> None:
        bridge = PciConfig(
            0x8086, 0x1237, class_code=0x060000, revision=2, subsystem_vendor=0x1AF4, subsystem=0x1100
        )
        # The chipset's own registers, memory attributes (PAM) among them: they hold what firmware writes.
        bridge.allow(0x40, 0xC0, -1)
        self._functions: dict[int, PciFunction] = {bdf(0, 0): bridge}
        self._address = 0
        self._kept: memoryview | None = None
        self._reset_control = 0
        self._host: DeviceHost | None = None

    def add_function(self, bdf: int, config: PciFunction) -> None:
        """Let `config` answer for the function with the 16-bit number `bdf` (see the function `bdf`).

        Raises DeviceOptionError when the number is out of range or taken.
        """
        if not 0 <= bdf <= 0xFFFF or bdf in self._functions:
            raise DeviceOptionError("PciHost", "bdf", bdf, "give a free number from 0 to 0xffff")
        self._functions[bdf] = config

    def remove_function(self, bdf: int) -> PciFunction | None:
        """Take the function away again: what answered for it, or None."""
        return self._functions.pop(bdf, None)

    def attach(self, host: DeviceHost) -> None:
        """Reset through `host.reset` from now on, and go on with the address that a predecessor had."""
        self._host = host
        if (store := getattr(host, "persistent", None)) is not None:
            self._kept = store.area[:AREA_BYTES].cast("Q")
            if self._kept[0] & _WRITTEN:
                self._address = self._kept[0] & _ADDRESS_BITS

    def detach(self) -> None:
        """Reset nothing any more."""
        self._host = self._kept = None

    def read(self, offset: int, size: int) -> int:
        """The address register (32 bits only), the reset control (8 bits) or `size` bytes of
        configuration.
        """
        if offset >= DATA:
            function = self._selected()
            if function is None or offset - DATA + size > 4:
                return (1 << 8 * size) - 1
            register = (self._address & 0xFC) + offset - DATA
            return function.config_read(register, size) | self._multi_function(register, size)
        if offset == ADDRESS and size == 4:
            return self._address
        if offset == RESET_CONTROL and size == 1:
            return self._reset_control
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """The same places; writes of other widths are dropped."""
        if offset >= DATA:
            function = self._selected()
            if function is not None and offset - DATA + size <= 4:
                function.config_write((self._address & 0xFC) + offset - DATA, size, value)
        elif offset == ADDRESS and size == 4:
            self._set_address(value & _ADDRESS_BITS)
        elif offset == RESET_CONTROL and size == 1:
            rising = value & ~self._reset_control & _RESET_CPU
            self._reset_control = value & (_RESET_KEPT | _RESET_CPU)
            if rising and self._host is not None:
                self._host.reset()

    def snapshot(self) -> PciHostState:
        """The registers, and the bytes of every function that is a `PciConfig`."""
        spaces = {
            bdf: bytes(each.data) for bdf, each in self._functions.items() if isinstance(each, PciConfig)
        }
        return PciHostState(self._address, self._reset_control, spaces)

    def restore(self, state: PciHostState) -> None:
        """Take `state` back for the functions that are there."""
        self._set_address(state.address)
        self._reset_control = state.reset_control
        for bdf, data in state.functions.items():
            function = self._functions.get(bdf)
            if isinstance(function, PciConfig):
                function.data[:] = data

    def _set_address(self, address: int) -> None:
        self._address = address
        if self._kept is not None:
            self._kept[0] = _WRITTEN | address

    def _multi_function(self, register: int, size: int) -> int:
        """Bit 7 of the header type, where it lies in this access to a function 0 that has neighbours in its
        slot: without it a guest looks at no other function (PCI 3.0 section 6.2.1).
        """
        first = self._address >> 8 & 0xFFFF
        if not register <= HEADER_TYPE < register + size or first & 7:
            return 0
        several = any(first + number in self._functions for number in range(1, 8))
        return _MULTI_FUNCTION << 8 * (HEADER_TYPE - register) if several else 0

    @property
    def slot(self) -> int:
        """The device number that the address register names."""
        return self._address >> 11 & 0x1F

    def _selected(self) -> PciFunction | None:
        if not self._address & _ENABLE:
            return None
        return self._functions.get(self._address >> 8 & 0xFFFF)
