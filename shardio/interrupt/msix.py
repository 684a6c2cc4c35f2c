"""`MsixTable`: the MSI-X table and pending bit array as the guest sees them, in front of a group in MSI-X
mode.

PCI 3.0 section 6.8.2: 16 bytes a vector (message address, upper address, data, vector control with the mask
in bit 0) and one pending bit a vector in units of 64 bits. The guest accesses aligned 32- or 64-bit words;
other accesses are undefined there, read zero and write nothing here. A vector delivers when it is unmasked,
the function is unmasked and MSI-X is enabled in the capability.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from shardio.interrupt.config import InterruptMode, MsiConfig
from shardio.interrupt.group import InterruptGroup

ENTRY_SIZE: Final = 16
CONTROL_ENABLE: Final = 0x8000
CONTROL_FUNCTION_MASK: Final = 0x4000
VECTOR_MASKED: Final = 1

_CONTROL_OFFSET: Final = 12


class MsixState(msgspec.Struct, frozen=True):
    """Table and message control as bytes and word; pending bits are delivered, not kept."""

    entries: bytes
    control: int


class MsixTable:
    """Table, PBA and message control of one function; drives the vectors of `group`."""

    def __init__(self, group: InterruptGroup, device_id: int | None = None) -> None:
        """`device_id`: see `MsiConfig`. All vectors are masked and MSI-X is disabled, as after a reset."""
        self._group = group
        self._device_id = device_id
        self._entries = bytearray()
        self._control = 0
        self._clear()

    def _clear(self) -> None:
        self._entries[:] = (bytes(_CONTROL_OFFSET) + VECTOR_MASKED.to_bytes(4, "little")) * len(self._group)
        self._control = 0

    @property
    def size(self) -> int:
        """Bytes of the table."""
        return len(self._entries)

    @property
    def pba_size(self) -> int:
        """Bytes of the pending bit array: whole 64-bit words."""
        return (len(self._group) + 63) // 64 * 8

    @property
    def enabled(self) -> bool:
        """Whether the function uses MSI-X."""
        return bool(self._control & CONTROL_ENABLE)

    # -- message control (16 bits, in the capability) ---------------------------------------------------

    def read_control(self) -> int:
        """Message control: enable, function mask, and the number of vectors less one."""
        return self._control | len(self._group) - 1

    def write_control(self, value: int) -> None:
        """The guest writes message control. Enabling switches the group to MSI-X, disabling to no mode.

        Raises InterruptError when the backend has no vectors left; MSI-X then stays disabled.
        """
        was = self.enabled
        now = bool(value & CONTROL_ENABLE)
        if now != was:
            self._group.switch(InterruptMode.MSIX if now else None)
        self._control = value & (CONTROL_ENABLE | CONTROL_FUNCTION_MASK)
        for index in range(len(self._group)):
            self._apply(index)

    def reset(self) -> None:
        """As after a reset of the function."""
        if self.enabled:
            self._group.switch(None)
        self._clear()

    def snapshot(self) -> MsixState:
        """What `restore` takes."""
        return MsixState(bytes(self._entries), self._control)

    def restore(self, state: MsixState) -> None:
        """Become what `state` says, in front of this group. Raises InterruptError when no vectors are
        left.
        """
        self.reset()
        self._entries[:] = state.entries[: self.size].ljust(self.size, b"\0")
        self.write_control(state.control)

    # -- the table --------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """An aligned word of 4 or 8 bytes of the table; else zero."""
        if not self._is_word(offset, size, self.size):
            return 0
        return int.from_bytes(self._entries[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """An aligned word of 4 or 8 bytes of the table; else dropped. Unmasking delivers what is pending."""
        if not self._is_word(offset, size, self.size):
            return
        self._entries[offset : offset + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        self._apply(offset // ENTRY_SIZE)

    def read_pba(self, offset: int, size: int) -> int:
        """An aligned word of 4 or 8 bytes of the pending bits; else zero. Writes to them are ignored."""
        if not self._is_word(offset, size, self.pba_size):
            return 0
        bits = 0
        for index, interrupt in enumerate(self._group.messages[8 * offset : 8 * (offset + size)]):
            bits |= interrupt.pending << index
        return bits

    @staticmethod
    def _is_word(offset: int, size: int, limit: int) -> bool:
        return size in (4, 8) and offset % size == 0 and offset + size <= limit

    def _apply(self, index: int) -> None:
        if not self.enabled:
            return
        interrupt = self._group.messages[index]
        address, data, control = struct.unpack_from("<QII", self._entries, ENTRY_SIZE * index)
        if control & VECTOR_MASKED or self._control & CONTROL_FUNCTION_MASK:
            interrupt.mask()
            interrupt.enable()  # a masked vector collects its pending bit
            return
        interrupt.configure(MsiConfig(address & ~3, data, self._device_id))
        interrupt.enable()
        interrupt.unmask()
