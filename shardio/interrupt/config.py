"""Where an interrupt goes: modes, the legacy line and INTx pin, the MSI message. Values only, valid by
construction.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from shardio.errors import InterruptError

MAX_GSI = 4095
"""Highest global system interrupt that can be named (KVM_MAX_IRQ_ROUTES is 4096)."""
EXTINT = 255
"""The line of a PIC's output to the boot processor, where the PIC is a device (`LegacyConfig.line`)."""
MSIX_MAX_VECTORS = 2048
"""Vectors of a MSI-X table at most (PCI 3.0 section 6.8.2)."""
MSI_MAX_VECTORS = 32
"""Vectors of a MSI capability at most (PCI 3.0 section 6.8.1)."""


MESSAGE_MODES = ("fixed", "lowest", "smi", "reserved", "nmi", "init", "startup", "extint")
"""Delivery modes of an x86 message by their number (Intel SDM volume 3, section 11.11.2, data register)."""


class InterruptMode(StrEnum):
    """How a group of interrupts reaches the guest."""

    INTX = "intx"
    MSI = "msi"
    MSIX = "msi-x"


class LegacyConfig(msgspec.Struct, frozen=True):
    """A wired interrupt: `line` is the GSI (ISA IRQ or IOAPIC pin), `pin` the PCI pin 1-4 (INTA-INTD) or 0.

    Raises InterruptError for a line above 4095 or another pin.
    """

    line: int
    pin: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.line, int) or not 0 <= self.line <= MAX_GSI:
            raise InterruptError(self.line, "no such line", f"use 0 to {MAX_GSI}")
        if not isinstance(self.pin, int) or not 0 <= self.pin <= 4:
            raise InterruptError(self.line, f"PCI has no pin {self.pin}", "use 1 to 4 for INTA to INTD, or 0")


class MsiConfig(msgspec.Struct, frozen=True):
    """A message-signalled interrupt: a write of `data` (32 bits) to `address` (64 bits, dword-aligned).

    `device_id` is the requester id that an interrupt translation service wants (KVM_MSI_VALID_DEVID), else
    None. Raises InterruptError for values that do not fit.

    >>> MsiConfig(address=0xFEE0_0000, data=0x31).vector
    49
    """

    address: int
    data: int
    device_id: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.address < 1 << 64 or self.address & 3:
            raise InterruptError(
                "MSI", f"address {self.address:#x} is no 64-bit dword address", "align it to 4"
            )
        if not 0 <= self.data < 1 << 32:
            raise InterruptError("MSI", f"data {self.data:#x} has more than 32 bits", "use 32 bits")
        if self.device_id is not None and not 0 <= self.device_id < 1 << 32:
            raise InterruptError("MSI", f"device id {self.device_id:#x} has more than 32 bits", "use 32 bits")

    @property
    def vector(self) -> int:
        """The x86 interrupt vector in the data's low byte."""
        return self.data & 0xFF

    @property
    def mode(self) -> str:
        """How an x86 local APIC takes it, one of `MESSAGE_MODES`: the data's bits 8 to 10.

        >>> MsiConfig(address=0xFEE0_0000, data=0x400).mode
        'nmi'
        """
        return MESSAGE_MODES[self.data >> 8 & 7]
