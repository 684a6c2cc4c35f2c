"""`DataPort`: the eight ports of a channel's command block, the first of which moves blocks of data.

Facts. A boot loader moves a disk through the data port, a word an access, so that what an access costs here
decides how long it takes.

Consequences. A block that is being moved is in front of everything else (`FastWords`), and the channel hears
of its last word only. Where the shard has memory that outlives it, the block is there, and a `Mark` says how
far it has come: saving a state for each word would cost more than the word. A block stays while the next one
is moved, for a successor that finds the state of before its last word.
"""

from __future__ import annotations

from typing import Any, Final

from shardio.fast_words import FastWords, hide, let_go, mark_in, show
from shardio.mark import Mark

BLOCK_BYTES: Final = 1 << 16
"""Of the largest block, and more."""
AREA_BYTES: Final = 64 + 2 * BLOCK_BYTES
_AT_BITS: Final = 20
_SERIAL_BITS: Final = 20


class DataPort(FastWords):
    """Subclasses have the other registers, `_block_done` and `save`. `serial` is that of the block that was
    opened last.
    """

    unguarded = frozenset((0,))

    def __init__(self) -> None:
        self._store: Any = None
        self._mark: Mark | None = None
        self._buffers: tuple[memoryview, memoryview] | None = None
        self._resumed = False
        """A predecessor's last access of the data port may be asked for again."""
        self._block: bytearray | memoryview | None = None
        self._out = False

    def read_slowly(self, offset: int, size: int) -> int:
        """A port of the command block; a wider access than the port's is one of its neighbours too."""
        if not offset:
            return self._read_data(size)
        if size == 1:
            return self._read_register(offset)
        return sum(self._read_register(offset + i) << 8 * i for i in range(min(size, 8 - offset)))

    def write_slowly(self, offset: int, size: int, value: int) -> None:
        """Likewise."""
        if not offset:
            self._write_data(size, value)
            return
        for i in range(min(size, 8 - offset)):
            self._write_register(offset + i, value >> 8 * i & 0xFF)

    def open_block(self, block: bytearray, *, out: bool) -> None:
        """The host may move all of `block`, `out` to it or from it; `_block_done` is called after its end."""
        self.serial = (self.serial + 1) % (1 << _SERIAL_BITS)
        if self._buffers is None:
            self._show(block, out)
        else:
            kept = self._buffers[self.serial & 1][: len(block)]
            kept[:] = block
            self._show(kept, out)

    def _show(self, block: bytearray | memoryview, out: bool) -> None:
        self._block, self.at, self._out = block, 0, out
        show(self, block)
        self._set_quick()

    # -- what outlives the shard ------------------------------------------------------------------------

    def keep_in(self, store: Any, area: memoryview) -> None:
        """Keep blocks in `area`, `AREA_BYTES` of the memory of `store`, from now on."""
        self._store = store
        self._mark = Mark(area[: Mark.BYTES])
        mark_in(self, area[: Mark.BYTES], store.control_at)
        self._buffers = area[64 : 64 + BLOCK_BYTES], area[64 + BLOCK_BYTES : AREA_BYTES]

    def let_go(self) -> None:
        """The memory may go."""
        self._close_block()
        let_go(self)
        self._store = self._mark = self._buffers = None

    def _note(self, before: int) -> None:
        """The access in hand has moved the block from `before` on."""
        assert self._mark is not None
        place = self.serial << _AT_BITS | before
        self._mark.set(self._store.journal(), place << _AT_BITS | self.at)

    def resume_block(self, serial: int, length: int, out: bool) -> None:
        """Go on with a predecessor's block, of `length` bytes (-1: there is none)."""
        self.serial, self._resumed = serial, True
        if length < 0 or self._buffers is None or self._mark is None:
            return
        self._show(self._buffers[serial & 1][:length], out)
        _, place = self._mark.get()
        if place >> 2 * _AT_BITS == serial:
            self.at = place & ((1 << _AT_BITS) - 1)

    def _settle_repeat(self) -> None:
        """The first access after a predecessor's: it may be that again by which the block was moved last."""
        assert self._mark is not None
        name, place = self._mark.get()
        if name == self._store.journal() and place >> 2 * _AT_BITS == self.serial:
            self.at = place >> _AT_BITS & ((1 << _AT_BITS) - 1)
        self._resumed = False
        self._set_quick()

    # -- moving -----------------------------------------------------------------------------------------

    def _set_quick(self) -> None:
        """Up to where words go without more ado: the last access of a block, whatever its width, is not one
        of these.
        """
        block = self._block
        limit = 0 if block is None or self._resumed else (len(block) & ~1) - 2
        self.quick_in, self.quick_out = (0, limit) if self._out else (limit, 0)

    def _close_block(self) -> None:
        hide(self)
        self._block, self.at = None, 0

    def _read_data(self, size: int) -> int:
        if self._store is None:
            return self._take_from_block(size)
        answer: int | None = self._store.begin()
        if answer is not None:
            return answer
        value = 0
        try:
            if self._resumed:
                self._settle_repeat()
            value = self._take_from_block(size)
        finally:
            self._store.end(value)
        return value

    def _write_data(self, size: int, value: int) -> None:
        if self._store is None:
            self._put_into_block(size, value)
        elif self._store.begin() is None:
            try:
                if self._resumed:
                    self._settle_repeat()
                self._put_into_block(size, value)
            finally:
                self._store.end(0)

    def _take_from_block(self, size: int) -> int:
        block = self._block
        if block is None or self._out:
            return 0
        at = self.at
        value = int.from_bytes(block[at : at + size], "little")
        self._moved(block, size)
        return value

    def _put_into_block(self, size: int, value: int) -> None:
        block = self._block
        if block is None or not self._out:
            return
        at, room = self.at, min(size, len(block) - self.at)
        block[at : at + room] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")[:room]
        self._moved(block, size)

    def _moved(self, block: bytearray | memoryview, size: int) -> None:
        before = self.at
        self.at += size
        if self.at < len(block):
            self._set_quick()
            if self._mark is not None:
                self._note(before)
            return
        self._close_block()
        self._block_done(block)
        self.save()

    # -- what a subclass has ----------------------------------------------------------------------------

    def save(self) -> None:
        raise NotImplementedError

    def _read_register(self, offset: int) -> int:
        raise NotImplementedError

    def _write_register(self, offset: int, value: int) -> None:
        raise NotImplementedError

    def _block_done(self, block: bytearray | memoryview) -> None:
        raise NotImplementedError
