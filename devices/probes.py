"""Probe devices for tests, demonstrations and benchmarks: `Echo`, `Counter`, `Delay`, `Failing`, `Checksum`.

Each answers ports and memory-mapped accesses of any width in the register form, and has a state that can be
saved.
"""

from __future__ import annotations

import time

import msgspec

from shardio.device import MutDeviceMmio, MutDevicePio
from shardio.devices.options import in_range
from shardio.errors import ShardioError

_MASK64 = (1 << 64) - 1
_PAGE = 4096
FNV_OFFSET = 0xCBF2_9CE4_8422_2325
FNV_PRIME = 0x0000_0100_0000_01B3


class EchoState(msgspec.Struct):
    """What `Echo` holds: bytes by page number (offset / 4096)."""

    pages: dict[int, bytes]


class Echo(MutDevicePio, MutDeviceMmio):
    """Memory: each offset reads what was last written to it, byte by byte, 0 before that.

    Takes memory by the page as it is written, so its range may be of any size.
    """

    pio_size = 16
    mmio_size = 0x1000

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def read(self, offset: int, size: int) -> int:
        """The `size` bytes at `offset`, little-endian."""
        page, at = divmod(offset, _PAGE)
        if at + size > _PAGE:
            low = _PAGE - at
            return self.read(offset, low) | self.read(offset + low, size - low) << 8 * low
        held = self._pages.get(page)
        return 0 if held is None else int.from_bytes(held[at : at + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Keep the low `size` bytes of `value` at `offset`."""
        page, at = divmod(offset, _PAGE)
        if at + size > _PAGE:
            low = _PAGE - at
            self.write(offset, low, value)
            self.write(offset + low, size - low, value >> 8 * low)
            return
        held = self._pages.get(page)
        if held is None:
            held = self._pages[page] = bytearray(_PAGE)
        held[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")

    def snapshot(self) -> EchoState:
        """A copy of what is held."""
        return EchoState({page: bytes(held) for page, held in self._pages.items()})

    def restore(self, state: EchoState) -> None:
        """Hold what `state` held."""
        self._pages = {page: bytearray(held) for page, held in state.pages.items()}


class CounterState(msgspec.Struct):
    """The value of a `Counter`."""

    value: int


class Counter(MutDevicePio, MutDeviceMmio):
    """Adds what is written, at any offset; every read gives the sum modulo 2^64, truncated to its width."""

    pio_size = 8
    mmio_size = 0x1000

    def __init__(self, start: int = 0) -> None:
        """`start`: the value before the first write."""
        self.value = start & _MASK64

    def read(self, offset: int, size: int) -> int:
        """The sum's low `size` bytes."""
        return self.value & ((1 << 8 * size) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        """Add `value`."""
        self.value = self.value + value & _MASK64

    def snapshot(self) -> CounterState:
        """The sum."""
        return CounterState(self.value)

    def restore(self, state: CounterState) -> None:
        """Go on from the sum in `state`."""
        self.value = state.value


class Delay(MutDevicePio, MutDeviceMmio):
    """Computes for `us` microseconds on every access, holding its interpreter, then answers.

    Reads give the number of accesses so far, this one included.
    """

    pio_size = 8
    mmio_size = 0x1000

    def __init__(self, us: float = 10.0) -> None:
        """`us`: microseconds to compute for, 0 to 1,000,000. Raises DeviceOptionError outside that."""
        self.us = in_range(us, 0, 1_000_000, device="Delay", option="us")
        self._ns = int(us * 1000)
        self.accesses = 0

    def read(self, offset: int, size: int) -> int:
        """Compute, then give the number of accesses."""
        self._compute()
        return self.accesses & ((1 << 8 * size) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        """Compute; the value does not matter."""
        self._compute()

    def snapshot(self) -> CounterState:
        """The number of accesses."""
        return CounterState(self.accesses)

    def restore(self, state: CounterState) -> None:
        """Go on counting from `state`."""
        self.accesses = state.value

    def _compute(self) -> None:
        self.accesses += 1
        end = time.perf_counter_ns() + self._ns
        while time.perf_counter_ns() < end:
            pass


class ProbeFailure(ShardioError):
    """What `Failing` raises: `direction` ("read" or "write"), `offset` and `size` in bytes."""

    def __init__(self, direction: str, offset: int, size: int) -> None:
        super().__init__(f"a {direction} of {size} byte(s) at offset {offset:#x} failed on purpose",
                         "expect it, or take the Failing device away")
        self.args = (direction, offset, size)
        self.direction, self.offset, self.size = direction, offset, size


class FailingState(msgspec.Struct):
    """The value that `Failing` holds and its three counts."""

    value: int
    accesses: int
    failures: int
    eligible: int


class Failing(MutDevicePio, MutDeviceMmio):
    """Raises `ProbeFailure` on its accesses; those that do not fail act as `Echo`'s at offset 0.

    `accesses` counts all of them, `failures` those that raised.
    """

    pio_size = 8
    mmio_size = 0x1000

    def __init__(self, reads: bool = True, writes: bool = True, every: int = 1) -> None:
        """`reads`, `writes`: which may fail; `every`: the n-th access of these fails, then the 2n-th and so
        on.

        Raises DeviceOptionError when `every` is below 1.
        """
        self.reads, self.writes = reads, writes
        self.every = in_range(every, 1, 1 << 62, device="Failing", option="every")
        self.accesses = 0
        self.failures = 0
        self._eligible = 0
        self._value = 0

    def read(self, offset: int, size: int) -> int:
        """The last value written, or ProbeFailure."""
        self._count(self.reads, "read", offset, size)
        return self._value & ((1 << 8 * size) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        """Keep `value`, or raise ProbeFailure and keep the old one."""
        self._count(self.writes, "write", offset, size)
        self._value = value

    def snapshot(self) -> FailingState:
        """The value and the counts."""
        return FailingState(self._value, self.accesses, self.failures, self._eligible)

    def restore(self, state: FailingState) -> None:
        """Go on from `state`."""
        self._value, self.accesses = state.value, state.accesses
        self.failures, self._eligible = state.failures, state.eligible

    def _count(self, may_fail: bool, direction: str, offset: int, size: int) -> None:
        self.accesses += 1
        if may_fail:
            self._eligible += 1
            if self._eligible % self.every == 0:
                self.failures += 1
                raise ProbeFailure(direction, offset, size)


def fnv1a64(data: bytes, state: int = FNV_OFFSET) -> int:
    """The 64-bit FNV-1a hash of `data`, going on from `state`.

    Source: Fowler, Noll, Vo; draft-eastlake-fnv, section 2.

    >>> hex(fnv1a64(b"a"))
    '0xaf63dc4c8601ec8c'
    """
    for byte in data:
        state = (state ^ byte) * FNV_PRIME & _MASK64
    return state


class ChecksumState(msgspec.Struct):
    """A running checksum: FNV-1a state, bytes and writes it covers."""

    value: int
    length: int
    writes: int


class Checksum(MutDevicePio, MutDeviceMmio):
    """The 64-bit FNV-1a hash of all that was written, at any offset, in the order of arrival.

    A write contributes its `size` bytes, low byte first, whatever its offset. Reads, of any width within
    them: offset 0 the hash, 8 how many bytes it covers, 16 how many writes (64 bits each), 0 elsewhere.
    """

    pio_size = 24
    mmio_size = 0x1000

    def __init__(self) -> None:
        self.value = FNV_OFFSET
        self.length = 0
        self.writes = 0

    def read(self, offset: int, size: int) -> int:
        """The bytes `offset` to `offset + size` of the registers above."""
        registers = self.value | (self.length & _MASK64) << 64 | (self.writes & _MASK64) << 128
        return registers >> 8 * offset & ((1 << 8 * size) - 1) if offset < 24 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Go on with the low `size` bytes of `value`."""
        self.value = fnv1a64((value & ((1 << 8 * size) - 1)).to_bytes(size, "little"), self.value)
        self.length += size
        self.writes += 1

    def snapshot(self) -> ChecksumState:
        """The state of the hash."""
        return ChecksumState(self.value, self.length, self.writes)

    def restore(self, state: ChecksumState) -> None:
        """Go on from `state`."""
        self.value, self.length, self.writes = state.value, state.length, state.writes
