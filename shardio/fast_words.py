"""`FastWords`: a base class, in C, for devices through one register of which a guest moves blocks of bytes.

Its `read` and `write` move the next 2 or 4 bytes at offset 0, up to a limit that the device sets; every other
access reaches the device's `read_slowly` and `write_slowly`.

>>> class Drive(FastWords):
...     def read_slowly(self, offset, size):
...         return 0xFF
>>> drive = Drive()
>>> show(drive, bytearray(b"abcdef"))
>>> drive.quick_in = 4
>>> hex(drive.read(0, 2)), hex(drive.read(0, 2)), hex(drive.read(0, 2)), drive.at
('0x6261', '0x6463', '0xff', 4)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardio._core import ffi, lib

if TYPE_CHECKING:

    class FastWords:
        """A block, of which `at` is the next byte. A read that ends at `quick_in` or before, a write that
        ends at `quick_out` or before, moves it on; 0, as at the start, is none. `serial` is the block's.
        """

        at: int
        quick_in: int
        quick_out: int
        serial: int

        def read(self, offset: int, size: int, /) -> int:
            """The next bytes, or what `read_slowly` gives."""

        def write(self, offset: int, size: int, value: int, /) -> None:
            """Put them there, or hand them to `write_slowly`."""

else:
    _made: dict[str, Any] = {}
    if lib.sio_fast_words_into(id(_made)):
        raise MemoryError

    FastWords = _made["FastWords"]


def show(device: FastWords, block: bytearray | memoryview) -> None:
    """`block` is what moves from now on, until `hide`; it cannot be resized meanwhile. Raises TypeError for
    bytes that cannot be written.
    """
    if lib.sio_fast_words_show(id(device), id(block)):
        raise TypeError(f"{type(block).__name__}: give writable bytes, as a bytearray has them")


def hide(device: FastWords) -> None:
    """No access is quick any more: the block may go."""
    device.quick_in = device.quick_out = 0
    lib.sio_fast_words_show(id(device), 0)


def mark_in(device: FastWords, mark: memoryview, control_at: int) -> None:
    """From now on each quick access counts together with its name, in `mark` (`shardio.mark.Mark`): the
    number there is made of the block's serial number and of `at` before and after it, 20 bits each.
    """
    words_at = ffi.from_buffer("uint64_t[]", mark)
    lib.sio_fast_words_keep(id(device), words_at, ffi.cast("struct sio_shard_control *", control_at))


def let_go(device: FastWords) -> None:
    """The memory that `mark_in` was given may go."""
    lib.sio_fast_words_keep(id(device), ffi.NULL, ffi.NULL)
