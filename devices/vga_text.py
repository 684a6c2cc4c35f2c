"""`VgaText`: enough of a VGA that text mode works and can be read: the registers at 0x3C0, and `screen()`.

Facts. Text mode is memory at 0xB8000, a character and a colour each cell, which a guest writes all the time
and seldom reads; nobody draws it here. An access to a device is an exit, one to RAM costs nothing.

Consequences. The memory stays guest RAM, which this device reads when somebody asks for the screen. Its
registers hold what was written to them; only the start address, the row length and the cursor mean something,
and the retrace bits change, since guests wait for them. There is no graphics mode.

Source: IBM VGA, as in the "Personal System/2 Hardware Interface Technical Reference", video subsystem.

>>> vga = VgaText()
>>> vga.write(0x14, 1, 0x0E)
>>> vga.write(0x15, 1, 0x07)
>>> vga.read(0x15, 1)
7
"""

from __future__ import annotations

from typing import Final

import msgspec

from shardio.device import DeviceHost, HostMemory, MutDevicePio
from shardio.range import PioRange

BASE: Final = 0x3C0
MEMORY: Final = 0xB_8000
MEMORY_SIZE: Final = 0x8000
ROWS: Final = 25

# Offsets from 0x3C0.
ATTRIBUTE, ATTRIBUTE_READ, MISC_WRITE = 0x00, 0x01, 0x02
SEQUENCER, DAC_READ, DAC_WRITE, DAC_DATA = 0x04, 0x07, 0x08, 0x09
MISC_READ, GRAPHICS, CRTC, STATUS_1 = 0x0C, 0x0E, 0x14, 0x1A

LAST_COLUMN, START_HIGH, START_LOW, CURSOR_HIGH, CURSOR_LOW = 0x01, 0x0C, 0x0D, 0x0E, 0x0F

_INDEXED: Final = (SEQUENCER, GRAPHICS, CRTC)
_COLOUR: Final = 0x67  # colour addresses, RAM enabled
_RETRACES: Final = 0x09
_ATTRIBUTE_INDEX: Final = 0x3F
_DAC_BYTES: Final = 3 * 256
_GLYPHS: Final = {
    **dict(enumerate("☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼", 1)),
    0x7F: "⌂",
}
"""What code page 437 shows for the codes that Python's codec takes for control characters."""


class VgaTextState(msgspec.Struct):
    """The registers: an index and 256 bytes of each indexed set; `dac_at` counts bytes of the palette."""

    misc: int
    indices: dict[int, int]
    sets: dict[int, bytes]
    attribute_is_data: bool
    retraces: int
    dac: bytes
    dac_at: int


class VgaText(MutDevicePio):
    """The 32 ports from 0x3C0, and the text in guest RAM at 0xB8000."""

    pio_size = 32
    persistent, state_type = 8192, VgaTextState
    ranges = (PioRange(BASE, 32),)
    dma = True

    def __init__(self) -> None:
        self._misc = _COLOUR
        self._indices = dict.fromkeys((*_INDEXED, ATTRIBUTE), 0)
        self._sets = {each: bytearray(256) for each in self._indices}
        self._sets[CRTC][LAST_COLUMN] = 79
        self._attribute_is_data = False
        self._retraces = 0
        self._dac = bytearray(_DAC_BYTES)
        self._dac_at = 0
        self._memory: HostMemory | None = None

    def attach(self, host: DeviceHost) -> None:
        """Read the screen in `host.memory` from now on."""
        self._memory = host.memory

    def detach(self) -> None:
        """Not any more."""
        self._memory = None

    # -- whoever looks at it ----------------------------------------------------------------------------

    @property
    def columns(self) -> int:
        """Characters in a row, as the CRT controller has them."""
        return self._sets[CRTC][LAST_COLUMN] + 1

    def screen(self) -> str:
        """The text on the screen: its rows, without what is blank at their ends. Raises MemoryAccessError
        where guest RAM does not reach 0xC0000.
        """
        if self._memory is None:
            return ""
        cells = self._memory.read(MEMORY, MEMORY_SIZE)
        first = 2 * self._word(START_HIGH)
        length = 2 * self.columns
        rows = []
        for row in range(ROWS):
            at = (first + row * length) % MEMORY_SIZE
            line = (cells + cells)[at : at + length : 2].replace(b"\0", b" ")
            rows.append(line.decode("cp437").translate(_GLYPHS).rstrip())
        return "\n".join(rows).rstrip("\n")

    def cursor(self) -> tuple[int, int]:
        """Row and column of the cursor, from 0."""
        return divmod(self._word(CURSOR_HIGH) - self._word(START_HIGH), self.columns)

    def _word(self, high: int) -> int:
        return self._sets[CRTC][high] << 8 | self._sets[CRTC][high + 1]

    # -- the guest --------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """A register; a wider access is one of its neighbours too."""
        return sum(self._read_byte(offset + i) << 8 * i for i in range(min(size, self.pio_size - offset)))

    def write(self, offset: int, size: int, value: int) -> None:
        """Likewise: an index and its data are often written at once."""
        for i in range(min(size, self.pio_size - offset)):
            self._write_byte(offset + i, value >> 8 * i & 0xFF)

    def _read_byte(self, offset: int) -> int:
        if offset in self._indices:
            return self._indices[offset]
        if offset - 1 in self._indices:
            index = self._indices[offset - 1]
            return self._sets[offset - 1][index & _ATTRIBUTE_INDEX if offset == ATTRIBUTE_READ else index]
        if offset == STATUS_1:
            self._attribute_is_data = False
            self._retraces ^= _RETRACES
            return self._retraces
        if offset == MISC_READ:
            return self._misc
        if offset == DAC_DATA:
            byte = self._dac[self._dac_at]
            self._dac_at = (self._dac_at + 1) % _DAC_BYTES
            return byte
        return self._dac_at // 3 if offset == DAC_WRITE else 0

    def _write_byte(self, offset: int, value: int) -> None:
        if offset == ATTRIBUTE:
            self._write_attribute(value)
        elif offset in self._indices:
            self._indices[offset] = value
        elif offset - 1 in _INDEXED:
            self._sets[offset - 1][self._indices[offset - 1]] = value
        elif offset == MISC_WRITE:
            self._misc = value
        elif offset in (DAC_READ, DAC_WRITE):
            self._dac_at = 3 * value
        elif offset == DAC_DATA:
            self._dac[self._dac_at] = value & 0x3F
            self._dac_at = (self._dac_at + 1) % _DAC_BYTES

    def _write_attribute(self, value: int) -> None:
        """Index and data take turns at one port; a read of input status 1 begins with the index again."""
        if self._attribute_is_data:
            self._sets[ATTRIBUTE][self._indices[ATTRIBUTE] & _ATTRIBUTE_INDEX] = value
        else:
            self._indices[ATTRIBUTE] = value
        self._attribute_is_data = not self._attribute_is_data

    def snapshot(self) -> VgaTextState:
        """The registers; the text is guest RAM."""
        return VgaTextState(
            self._misc,
            dict(self._indices),
            {each: bytes(values) for each, values in self._sets.items()},
            self._attribute_is_data,
            self._retraces,
            bytes(self._dac),
            self._dac_at,
        )

    def restore(self, state: VgaTextState) -> None:
        """Take them back."""
        self._misc, self._indices = state.misc, dict(state.indices)
        self._sets = {each: bytearray(values) for each, values in state.sets.items()}
        self._attribute_is_data, self._retraces = state.attribute_is_data, state.retraces
        self._dac, self._dac_at = bytearray(state.dac), state.dac_at
