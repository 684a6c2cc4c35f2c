"""`VgaText`: enough of a VGA that text mode works and can be read: the registers at 0x3C0, and `screen()`.

Facts. Text mode is memory at 0xB8000, a character and a colour each cell, which a guest writes all the time
and seldom reads; nobody draws it here. An access to a device is an exit, one to RAM costs nothing.

Consequences. The memory stays guest RAM, which this device reads when somebody asks for the screen. Its
registers hold what was written to them; only the start address, the row length and the cursor mean something,
and the retrace bits change, since guests wait for them. There is no graphics mode. All registers are in one
buffer, which outlives the shard as it is: an encoding of it for each access would cost more than the access.

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
_SETS: Final = (*_INDEXED, ATTRIBUTE)
_COLOUR: Final = 0x67  # colour addresses, RAM enabled
_RETRACES: Final = 0x09
_ATTRIBUTE_INDEX: Final = 0x3F
_DAC_BYTES: Final = 3 * 256
# Where in the buffer: single bytes, the indices in the order of _SETS, 256 bytes of each set, the palette.
_MISC, _ATTRIBUTE_IS_DATA, _RETRACE, _INDICES = 0, 1, 2, 4
_DAC_AT = slice(8, 10)
_SET_BYTES: Final = 256
_INDEX_AT: Final = {each: _INDICES + number for number, each in enumerate(_SETS)}
_SET_AT: Final = {each: 10 + number * _SET_BYTES for number, each in enumerate(_SETS)}
_DAC: Final = 10 + len(_SETS) * _SET_BYTES
_BYTES: Final = _DAC + _DAC_BYTES
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
    persistent, state_type = _BYTES, VgaTextState
    ranges = (PioRange(BASE, 32),)
    dma = True

    def __init__(self) -> None:
        self.state_bytes = bytearray(_BYTES)
        """All registers."""
        self.state_bytes[_MISC] = _COLOUR
        self.state_bytes[_SET_AT[CRTC] + LAST_COLUMN] = 79
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
        return self.state_bytes[_SET_AT[CRTC] + LAST_COLUMN] + 1

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
        at = _SET_AT[CRTC] + high
        return int.from_bytes(self.state_bytes[at : at + 2], "big")

    # -- the guest --------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """A register; a wider access is one of its neighbours too."""
        return sum(self._read_byte(offset + i) << 8 * i for i in range(min(size, self.pio_size - offset)))

    def write(self, offset: int, size: int, value: int) -> None:
        """Likewise: an index and its data are often written at once."""
        for i in range(min(size, self.pio_size - offset)):
            self._write_byte(offset + i, value >> 8 * i & 0xFF)

    def _read_byte(self, offset: int) -> int:
        state = self.state_bytes
        if offset in _INDEX_AT:
            return state[_INDEX_AT[offset]]
        if offset - 1 in _INDEX_AT:
            index = state[_INDEX_AT[offset - 1]]
            index = index & _ATTRIBUTE_INDEX if offset == ATTRIBUTE_READ else index
            return state[_SET_AT[offset - 1] + index]
        if offset == STATUS_1:
            state[_ATTRIBUTE_IS_DATA] = False
            state[_RETRACE] ^= _RETRACES
            return state[_RETRACE]
        if offset == MISC_READ:
            return state[_MISC]
        if offset == DAC_DATA:
            byte = state[_DAC + self._dac_at]
            self._dac_at = (self._dac_at + 1) % _DAC_BYTES
            return byte
        return self._dac_at // 3 if offset == DAC_WRITE else 0

    def _write_byte(self, offset: int, value: int) -> None:
        state = self.state_bytes
        if offset == ATTRIBUTE:
            self._write_attribute(value)
        elif offset in _INDEX_AT:
            state[_INDEX_AT[offset]] = value
        elif offset - 1 in _INDEXED:
            state[_SET_AT[offset - 1] + state[_INDEX_AT[offset - 1]]] = value
        elif offset == MISC_WRITE:
            state[_MISC] = value
        elif offset in (DAC_READ, DAC_WRITE):
            self._dac_at = 3 * value
        elif offset == DAC_DATA:
            state[_DAC + self._dac_at] = value & 0x3F
            self._dac_at = (self._dac_at + 1) % _DAC_BYTES

    def _write_attribute(self, value: int) -> None:
        """Index and data take turns at one port; a read of input status 1 begins with the index again."""
        state = self.state_bytes
        at = _INDEX_AT[ATTRIBUTE]
        if state[_ATTRIBUTE_IS_DATA]:
            state[_SET_AT[ATTRIBUTE] + (state[at] & _ATTRIBUTE_INDEX)] = value
        else:
            state[at] = value
        state[_ATTRIBUTE_IS_DATA] = not state[_ATTRIBUTE_IS_DATA]

    @property
    def _dac_at(self) -> int:
        """The next byte of the palette; 768 at most."""
        return int.from_bytes(self.state_bytes[_DAC_AT], "little") % _DAC_BYTES

    @_dac_at.setter
    def _dac_at(self, at: int) -> None:
        self.state_bytes[_DAC_AT] = at.to_bytes(2, "little")

    def snapshot(self) -> VgaTextState:
        """The registers; the text is guest RAM."""
        state = self.state_bytes
        return VgaTextState(
            state[_MISC],
            {each: state[at] for each, at in _INDEX_AT.items()},
            {each: bytes(state[at : at + _SET_BYTES]) for each, at in _SET_AT.items()},
            bool(state[_ATTRIBUTE_IS_DATA]),
            state[_RETRACE],
            bytes(state[_DAC:]),
            self._dac_at,
        )

    def restore(self, state: VgaTextState) -> None:
        """Take them back."""
        here = self.state_bytes
        here[_MISC], here[_ATTRIBUTE_IS_DATA] = state.misc, state.attribute_is_data
        here[_RETRACE], self._dac_at = state.retraces, state.dac_at
        here[_DAC:] = state.dac
        for each, at in _SET_AT.items():
            here[_INDEX_AT[each]] = state.indices[each]
            here[at : at + _SET_BYTES] = state.sets[each]
