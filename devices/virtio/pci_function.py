"""`VirtioFunction`: the configuration space of a virtio PCI device (virtio 1.2 section 4.1): capabilities
and MSI-X.

One memory BAR holds every structure; capabilities say where. The MSI-X message control and the access
window of VIRTIO_PCI_CAP_PCI_CFG (for a guest that cannot map the BAR) are live, everything else is plain
bytes.
"""

from __future__ import annotations

import struct
from typing import Final, Protocol

from shardio.devices.pci_config import (
    COMMAND,
    COMMAND_MEMORY,
    INTERRUPT_LINE,
    STATUS,
    PciConfig,
)

VENDOR_ID: Final = 0x1AF4
MODERN_DEVICE_ID: Final = 0x1040  # plus the virtio device type
COMMAND_INTX_DISABLE: Final = 0x0400
STATUS_CAPABILITIES: Final = 0x10
CAPABILITIES_POINTER: Final = 0x34
FIRST_CAPABILITY: Final = 0x40
_VENDOR_SPECIFIC: Final = 0x09
_MSIX: Final = 0x11

# cfg_type of struct virtio_pci_cap, and where the structures lie in BAR 0.
COMMON_CFG, NOTIFY_CFG, ISR_CFG, DEVICE_CFG, PCI_CFG = 1, 2, 3, 4, 5
COMMON_OFFSET: Final = 0x0000
COMMON_SIZE: Final = 0x40
ISR_OFFSET: Final = 0x0400
DEVICE_OFFSET: Final = 0x0800
DEVICE_SIZE: Final = 0x0100
NOTIFY_OFFSET: Final = 0x1000
NOTIFY_MULTIPLIER: Final = 4
MSIX_TABLE_OFFSET: Final = 0x2000
MSIX_PBA_OFFSET: Final = 0x3000
BAR_SIZE: Final = 0x4000

_CLASSES: Final = {1: 0x020000, 2: 0x010000, 3: 0x078000, 4: 0xFF0000}


class BarAccess(Protocol):
    """What the function asks of the device behind it."""

    def read_bar(self, offset: int, size: int) -> int:
        """`size` bytes of the BAR, whether or not the guest enabled memory decoding."""

    def write_bar(self, offset: int, size: int, value: int) -> None:
        """Write the BAR, likewise."""

    def read_msix_control(self) -> int:
        """MSI-X message control, 16 bits."""

    def write_msix_control(self, value: int) -> None:
        """The guest wrote MSI-X message control."""

    def command_changed(self) -> None:
        """The guest wrote the command register or a base address: decoding, INTx, the BAR's place."""


class VirtioFunction(PciConfig):
    """Vendor 1af4, device 1040 plus type, one 16 KiB memory BAR."""

    def __init__(
        self, device_type: int, queues: int, vectors: int, access: BarAccess, *, pin: int = 1
    ) -> None:
        """`vectors`: entries of the MSI-X table, 1 to 2048. `pin`: INTA to INTD as 1 to 4, 0 for no INTx."""
        super().__init__(
            VENDOR_ID,
            MODERN_DEVICE_ID + device_type,
            class_code=_CLASSES.get(device_type, 0xFF0000),
            revision=1,
            subsystem_vendor=VENDOR_ID,
            subsystem=MODERN_DEVICE_ID + device_type,
            interrupt_pin=pin,
        )
        self._access = access
        self._next = FIRST_CAPABILITY
        self._last_link = CAPABILITIES_POINTER
        self.store(STATUS, 2, STATUS_CAPABILITIES)
        self.add_bar(0, BAR_SIZE)
        self._add_structure(COMMON_CFG, COMMON_OFFSET, COMMON_SIZE)
        self._add_structure(NOTIFY_CFG, NOTIFY_OFFSET, NOTIFY_MULTIPLIER * queues, extra=NOTIFY_MULTIPLIER)
        self._add_structure(ISR_CFG, ISR_OFFSET, 1)
        self._add_structure(DEVICE_CFG, DEVICE_OFFSET, DEVICE_SIZE)
        self._window = self._add_structure(PCI_CFG, 0, 0, extra=0)
        self.allow(self._window + 4, 1, 0xFF)  # bar
        self.allow(self._window + 8, 8, -1)  # offset, length
        self.msix = self._add(_MSIX, struct.pack("<HII", vectors - 1, MSIX_TABLE_OFFSET, MSIX_PBA_OFFSET))

    def _add_structure(self, kind: int, offset: int, length: int, *, extra: int | None = None) -> int:
        """A struct virtio_pci_cap, with the 32 bits that two kinds append."""
        tail = b"" if extra is None else struct.pack("<I", extra)
        body = struct.pack("<BBB3xII", 16 + len(tail), kind, 0, offset, length) + tail
        return self._add(_VENDOR_SPECIFIC, body)

    def _add(self, capability: int, body: bytes) -> int:
        at = self._next
        self.data[at : at + 2 + len(body)] = bytes((capability, 0)) + body
        self.store(self._last_link, 1, at)
        self._last_link = at + 1
        self._next = (at + 2 + len(body) + 3) & ~3
        return at

    @property
    def decodes_memory(self) -> bool:
        """Whether the BAR answers at all."""
        return bool(self.load(COMMAND, 2) & COMMAND_MEMORY)

    @property
    def intx_disabled(self) -> bool:
        """Whether the guest forbids INTx."""
        return bool(self.load(COMMAND, 2) & COMMAND_INTX_DISABLE)

    def config_read(self, register: int, size: int) -> int:
        """See `PciConfig.config_read`; reading the window's data reads the BAR."""
        if self._is_window_data(register) and (target := self._window_target(size)) is not None:
            return self._access.read_bar(target, size)
        if register < self.msix + 4 and self.msix + 2 < register + size:
            self.store(self.msix + 2, 2, self._access.read_msix_control())
        return super().config_read(register, size)

    def config_write(self, register: int, size: int, value: int) -> None:
        """See `PciConfig.config_write`; writing the window's data writes the BAR."""
        if self._is_window_data(register):
            if (target := self._window_target(size)) is not None:
                self._access.write_bar(target, size, value)
            return
        control = self.msix + 2 - register
        if control >= 0 and control + 2 <= size:
            self._access.write_msix_control(value >> (8 * control) & 0xFFFF)
        elif register == self.msix + 3:  # the byte with enable and function mask
            self._access.write_msix_control((value & 0xFF) << 8)
        super().config_write(register, size, value)
        if register < INTERRUPT_LINE:
            self._access.command_changed()

    def _is_window_data(self, register: int) -> bool:
        return register == self._window + 16

    def _window_target(self, size: int) -> int | None:
        """Where the window points; None where it is not a proper access (section 4.1.4.9)."""
        offset, length = self.load(self._window + 8, 4), self.load(self._window + 12, 4)
        if self.load(self._window + 4, 1) or length != size or offset % size or offset + size > BAR_SIZE:
            return None
        return offset
