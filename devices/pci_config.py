"""The 256 bytes of a PCI function's configuration space: which bits the guest may write, and its base
addresses.

Source: PCI Local Bus Specification 3.0, section 6.1 (header type 0) and 6.2.5 (base address registers).
"""

from __future__ import annotations

from shardio.errors import DeviceOptionError

VENDOR = 0x00
DEVICE = 0x02
COMMAND = 0x04
STATUS = 0x06
REVISION = 0x08
CLASS = 0x09
HEADER_TYPE = 0x0E
BAR0 = 0x10
SUBSYSTEM_VENDOR = 0x2C
SUBSYSTEM = 0x2E
INTERRUPT_LINE = 0x3C
INTERRUPT_PIN = 0x3D

COMMAND_IO = 0x0001
COMMAND_MEMORY = 0x0002
COMMAND_MASTER = 0x0004
COMMAND_INTX_DISABLE = 0x0400
COMMAND_WRITABLE = 0x0547  # I/O, memory, master, parity, SERR, INTx disable

STATUS_INTERRUPT = 0x0008

_SIZE = 256
_BARS = 6


class PciConfig:
    """A function's configuration space; `data` holds it, `writable` its bits that the guest may change.

    A subclass overrides `config_write` to learn of changes (the command register, a moved base address).

    >>> function = PciConfig(0x8086, 0x1237, class_code=0x060000)
    >>> hex(function.config_read(VENDOR, 4))
    '0x12378086'
    """

    def __init__(
        self,
        vendor: int,
        device: int,
        *,
        class_code: int,
        revision: int = 0,
        subsystem_vendor: int = 0,
        subsystem: int = 0,
        interrupt_pin: int = 0,
    ) -> None:
        """`class_code`: base class, subclass and interface (24 bits); `interrupt_pin`: 1 to 4 for INTA to
        INTD, 0 for none. All other values are 16 bits, `revision` 8.
        """
        self.data = bytearray(_SIZE)
        self.writable = bytearray(_SIZE)
        self.store(VENDOR, 2, vendor)
        self.store(DEVICE, 2, device)
        self.store(REVISION, 1, revision)
        self.store(CLASS, 3, class_code)
        self.store(SUBSYSTEM_VENDOR, 2, subsystem_vendor)
        self.store(SUBSYSTEM, 2, subsystem)
        self.store(INTERRUPT_PIN, 1, interrupt_pin)
        self.allow(COMMAND, 2, COMMAND_WRITABLE)
        self.allow(INTERRUPT_LINE, 1, 0xFF)

    def add_bar(self, index: int, size: int, *, io: bool = False, wide: bool = False) -> None:
        """Declare base address register `index` (0 to 5): `size` bytes, a power of two, of at least 16
        (memory) or 4 (`io`); `wide` makes it a 64-bit one, which takes the next register too.

        Raises DeviceOptionError for a size or an index that the header cannot express.
        """
        if size < (4 if io else 16) or size & size - 1 or size > 1 << (63 if wide else 31):
            hint = "give a power of two that the register can hold"
            raise DeviceOptionError("PciConfig", "size", size, hint)
        if not 0 <= index < _BARS - wide or (io and wide):
            hint = "give 0 to 5 (at most 4 for a 64-bit memory register)"
            raise DeviceOptionError("PciConfig", "index", index, hint)
        at = BAR0 + 4 * index
        self.store(at, 4, 0x1 if io else 0x4 if wide else 0x0)
        self.allow(at, 8 if wide else 4, ~(size - 1))

    def bar(self, index: int) -> int:
        """The address in base address register `index`, without its type bits; both halves of a 64-bit
        one.
        """
        at = BAR0 + 4 * index
        low = self.load(at, 4)
        if low & 0x1:
            return low & ~0x3
        return low & ~0xF | (self.load(at + 4, 4) << 32 if low & 0x4 else 0)

    def set_interrupt_status(self, pending: bool) -> None:
        """Whether the function has an INTx interrupt pending: bit 3 of the status register (section 6.2.3),
        which the interrupt-disable bit of the command register does not change.
        """
        status = self.load(STATUS, 2)
        self.store(STATUS, 2, status | STATUS_INTERRUPT if pending else status & ~STATUS_INTERRUPT)

    def config_read(self, register: int, size: int) -> int:
        """The guest reads `size` (1, 2 or 4) bytes at `register`, little-endian."""
        return self.load(register, size)

    def config_write(self, register: int, size: int, value: int) -> None:
        """The guest writes `size` bytes at `register`; bits that are not writable stay."""
        mask = int.from_bytes(self.writable[register : register + size], "little")
        self.store(register, size, self.load(register, size) & ~mask | value & mask)

    def load(self, register: int, size: int) -> int:
        """What is held at `register`, whatever the guest may do."""
        return int.from_bytes(self.data[register : register + size], "little")

    def store(self, register: int, size: int, value: int) -> None:
        """Set what is held at `register`; `value` is truncated to `size` bytes."""
        self.data[register : register + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")

    def allow(self, register: int, size: int, mask: int) -> None:
        """Let the guest write the bits of `mask`."""
        self.writable[register : register + size] = (mask & ((1 << 8 * size) - 1)).to_bytes(size, "little")
