"""`DataPort`: the eight ports of a channel's command block, the first of which moves blocks of data.

Facts. A boot loader moves a disk through the data port, a word an access, so that what an access costs here
decides how long it takes.

Consequences. A block that is being moved is a list of words in front of everything else, and the channel
hears of its last word only.
"""

from __future__ import annotations

_NO_WORDS = memoryview(bytearray(2)).cast("H")


class DataPort:
    """Subclasses have the other registers, and `_block_done`."""

    def __init__(self) -> None:
        self._block: bytearray | None = None
        self._words = _NO_WORDS
        self._at = self._quick_in = self._quick_out = 0
        self._out = False

    def read(self, offset: int, size: int) -> int:
        """A port of the command block; a wider access than the port's is one of its neighbours too."""
        if not offset:
            at = self._at
            if at < self._quick_in and size == 2:
                self._at = at + 2
                return self._words[at >> 1]
            return self._read_data(size)
        if size == 1:
            return self._read_register(offset)
        return sum(self._read_register(offset + i) << 8 * i for i in range(min(size, 8 - offset)))

    def write(self, offset: int, size: int, value: int) -> None:
        """Likewise."""
        if not offset:
            at = self._at
            if at < self._quick_out and size == 2:
                self._at = at + 2
                self._words[at >> 1] = value
            else:
                self._write_data(size, value)
            return
        for i in range(min(size, 8 - offset)):
            self._write_register(offset + i, value >> 8 * i & 0xFF)

    def open_block(self, block: bytearray, *, out: bool) -> None:
        """The host may move all of `block`, `out` to it or from it; `_block_done` is called after its end."""
        self._block, self._at, self._out = block, 0, out
        even = len(block) & ~1
        self._words = memoryview(block)[:even].cast("H")
        self._set_quick()

    def _set_quick(self) -> None:
        """Up to where words go without more ado: the last access of a block, whatever its width, is not one
        of these.
        """
        block = self._block
        limit = 0 if block is None or self._at & 1 else (len(block) & ~1) - 2
        self._quick_in, self._quick_out = (0, limit) if self._out else (limit, 0)

    def _close_block(self) -> None:
        self._block, self._words = None, _NO_WORDS
        self._at = self._quick_in = self._quick_out = 0

    def _read_data(self, size: int) -> int:
        block = self._block
        if block is None or self._out:
            return 0
        at = self._at
        value = int.from_bytes(block[at : at + size], "little")
        self._moved(block, size)
        return value

    def _write_data(self, size: int, value: int) -> None:
        block = self._block
        if block is None or not self._out:
            return
        at, room = self._at, min(size, len(block) - self._at)
        block[at : at + room] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")[:room]
        self._moved(block, size)

    def _moved(self, block: bytearray, size: int) -> None:
        self._at += size
        if self._at < len(block):
            self._set_quick()
            return
        self._close_block()
        self._block_done(block)

    # -- what a subclass has ----------------------------------------------------------------------------

    def _read_register(self, offset: int) -> int:
        raise NotImplementedError

    def _write_register(self, offset: int, value: int) -> None:
        raise NotImplementedError

    def _block_done(self, block: bytearray) -> None:
        raise NotImplementedError
