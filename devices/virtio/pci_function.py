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
    COMMAND_INTX_DISABLE,
    COMMAND_MASTER,
    COMMAND_MEMORY,
    INTERRUPT_LINE,
    STATUS,
    PciConfig,
)

VENDOR_ID: Final = 0x1AF4
MODERN_DEVICE_ID: Final = 0x1040  # plus the virtio device type
STATUS_CAPABILITIES: Final = 0x10
CAPABILITIES_POINTER: Final = 0x34
FIRST_CAPABILITY: Final = 0x40
_NO_LINE: Final = 0xFF  # "unknown" in the interrupt line register
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
        self,
        device_type: int,
        queues: int,
        vectors: int,
        access: BarAccess,
        *,
        pin: int = 1,
        line: int = 0,
    ) -> None:
        """`vectors`: entries of the MSI-X table, 1 to 2048. `pin`: INTA to INTD as 1 to 4, 0 for no INTx;
        `line`: its GSI, which the interrupt line register tells until somebody else writes it.
        """
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
        self.allow(self._window + 8, 12, -1)  # offset, length, data
        self.store(INTERRUPT_LINE, 1, min(line, _NO_LINE) if pin else 0)
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
    def masters_bus(self) -> bool:
        """Whether the device may access guest RAM and send messages."""
        return bool(self.load(COMMAND, 2) & COMMAND_MASTER)

    @property
    def intx_disabled(self) -> bool:
        """Whether the guest forbids INTx."""
        return bool(self.load(COMMAND, 2) & COMMAND_INTX_DISABLE)

    def config_read(self, register: int, size: int) -> int:
        """See `PciConfig.config_read`; reading the window's data reads the BAR."""
        if self._is_window_data(register, size) and (target := self._window_target()) is not None:
            offset, length = target
            self.store(self._window + 16, length, self._access.read_bar(offset, length))
        if register < self.msix + 4 and self.msix + 2 < register + size:
            self.store(self.msix + 2, 2, self._access.read_msix_control())
        return super().config_read(register, size)

    def config_write(self, register: int, size: int, value: int) -> None:
        """See `PciConfig.config_write`; writing the window's data writes the BAR."""
        if self._is_window_data(register, size):
            super().config_write(register, size, value)
            if (target := self._window_target()) is not None:
                offset, length = target
                self._access.write_bar(offset, length, self.load(self._window + 16, length))
            return
        control = self.msix + 2 - register
        if control >= 0 and control + 2 <= size:
            self._access.write_msix_control(value >> (8 * control) & 0xFFFF)
        elif register == self.msix + 3:  # the byte with enable and function mask
            self._access.write_msix_control((value & 0xFF) << 8)
        super().config_write(register, size, value)
        if register < INTERRUPT_LINE:
            self._access.command_changed()

    def _is_window_data(self, register: int, size: int) -> bool:
        return register < self._window + 20 and register + size > self._window + 16

    def _window_target(self) -> tuple[int, int] | None:
        """Where the window points in the BAR, and the width of the access that goes there; None where that
        is no proper access.

        Sections 4.1.4.9.1 and 4.1.4.9.2: an access to the window's data, of any width, is one of cap.length
        bytes to the BAR, for which the first cap.length bytes of the data stand; a length of 1, 2 or 4, an
        aligned offset.
        """
        offset, length = self.load(self._window + 8, 4), self.load(self._window + 12, 4)
        if length not in (1, 2, 4) or offset % length or offset + length > BAR_SIZE:
            return None
        return None if self.load(self._window + 4, 1) else (offset, length)
