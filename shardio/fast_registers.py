"""`FastRegisters`: a base class, in C, for devices that a guest polls and sends bytes through.

Its `read` answers one register from a value at hand, its `write` gathers what goes to one register; the
device says where, and every other access reaches its `read_slowly` and `write_slowly`. What that saves is in
docs/explanation/performance_history.md, under "Printing".

>>> class Printer(FastRegisters):
...     def read_slowly(self, offset, size):
...         return 0xFF
...     def write_slowly(self, offset, size, value):
...         print("offset", offset, "value", value)
>>> printer = Printer()
>>> printer.status_at, printer.status, printer.data_at, printer.limit = 5, 0x60, 0, 4096
>>> printer.read(5, 1), printer.read(5, 2)
(96, 255)
>>> printer.write(0, 1, 65)
>>> printer.write(1, 1, 2)
offset 1 value 2
>>> printer.gathered
bytearray(b'A')
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardio._core import ffi, lib

if TYPE_CHECKING:

    class FastRegisters:
        """What of a device is answered in C: one byte read at `status_at` is `status`, one byte written at
        `data_at` is appended to `gathered` as long as that holds fewer than `limit` bytes, unless it is
        `slow_byte`. -1, as at the start, is nowhere, or no byte. A value that is written is cut to its byte.
        """

        status_at: int
        status: int
        data_at: int
        limit: int
        slow_byte: int

        head: int
        tail: int
        """How many bytes have left the ring, and come into it: see `keep_in`."""

        @property
        def gathered(self) -> bytearray:
            """What the guest has written at `data_at` since the device emptied it."""

        def read(self, offset: int, size: int, /) -> int:
            """`status`, or what `read_slowly` gives."""

        def write(self, offset: int, size: int, value: int, /) -> None:
            """Gather the byte, or hand it to `write_slowly`."""

else:
    _FIELDS = ("status_at", "status", "data_at", "limit", "slow_byte")
    _made: dict[str, Any] = {}
    if lib.sio_fast_registers_into(id(_made)):
        raise MemoryError

    class FastRegisters(_made["FastRegisters"]):
        __slots__ = ()

        def __reduce__(self) -> tuple[Any, ...]:
            """A device that is made in one process may be sent to its shard."""
            fields = {name: getattr(self, name) for name in _FIELDS}
            return _again, (type(self), {**self.__dict__, **fields}, bytes(self.gathered))

    def _again(kind: Any, state: dict[str, Any], gathered: bytes) -> Any:
        device = kind.__new__(kind)
        for name, value in state.items():
            setattr(device, name, value)
        device.gathered.extend(gathered)
        return device


def keep_in(device: FastRegisters, ring: memoryview, mark: memoryview, control_at: int) -> None:
    """From now on the device's bytes gather in `ring`, memory of a power of two that outlives the process, at
    `tail` modulo its size, as long as there are fewer than `limit` from `head` on. Each counts together with
    the name of its access, in `mark` (`shardio.mark.Mark`).
    """
    bytes_at, words_at = ffi.from_buffer("uint8_t[]", ring), ffi.from_buffer("uint64_t[]", mark)
    control = ffi.cast("struct sio_shard_control *", control_at)
    lib.sio_fast_registers_keep(id(device), bytes_at, len(ring), words_at, control)


def let_go(device: FastRegisters) -> None:
    """Its bytes gather in `gathered` again: the memory that `keep_in` was given may go."""
    lib.sio_fast_registers_keep(id(device), ffi.NULL, 0, ffi.NULL, ffi.NULL)
