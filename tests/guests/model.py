"""What the guests `random_access` and `checksum` do, again, on the host: their generator and their accesses.

`random_accesses` makes the accesses of one vCPU, in order, against two callbacks, and returns the checksum
that the guest must have in its results; `RandomAccesses` makes them one at a time. A string is so many single
accesses: a port's all at one address, memory's in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

MASK = 0xFFFF_FFFF
WIDTHS = (1, 2, 4, 4)


@dataclass(frozen=True)
class AccessRange:
    """One of the guest's ranges: the words Rn_KIND, Rn_BASE and Rn_MASK."""

    base: int
    mask: int
    mmio: bool
    strings: bool

    def presets(self, number: int) -> dict[str, int]:
        """The --defsym presets of this range as range `number`."""
        kind = (0x10 if self.mmio else 0) | (0x08 if self.strings else 0)
        return {f"R{number}_KIND": kind, f"R{number}_BASE": self.base, f"R{number}_MASK": self.mask}


def presets(ranges: list[AccessRange]) -> dict[str, int]:
    """The --defsym presets of all `ranges`, NRANGES with them."""
    found = {"NRANGES": len(ranges)}
    for number, range_ in enumerate(ranges):
        found |= range_.presets(number)
    return found


def step(state: int) -> int:
    """The generator's next state."""
    return (state * 1664525 + 1013904223) & MASK


Read = Callable[[bool, int, int], int]
"""`read(mmio, address, width)` gives the value read."""
Write = Callable[[bool, int, int, int], None]
"""`write(mmio, address, width, value)`."""


class RandomAccesses:
    """One vCPU of `random_access`, an access at a time. `strides`: ports', memory's.

    `made` accesses so far, `checksum` after them; `folds`: what the guest's checksum was on the way through
    the last access, before it first and `checksum` last.
    """

    def __init__(
        self,
        vcpu: int,
        seed: int,
        ranges: list[AccessRange],
        strides: tuple[int, int],
        read: Read,
        write: Write,
    ) -> None:
        self.made = 0
        self.checksum = 2166136261
        self.folds = [self.checksum]
        self._state = (seed + vcpu * 0x9E37_79B9) & MASK
        self._vcpu, self._ranges, self._strides = vcpu, ranges, strides
        self._read, self._write = read, write

    def make_one(self) -> None:
        """The next access."""
        state = step(self._state)
        range_ = self._ranges[(state >> 24) * len(self._ranges) >> 8]
        width, is_write = WIDTHS[state >> 16 & 3], bool(state >> 18 & 1)
        is_string = range_.strings and bool(state >> 19 & 1)
        state = step(state)
        address = range_.base + (state >> 16 & range_.mask) + self._vcpu * self._strides[range_.mmio]
        length = (state >> 28 & 7) + 1 if is_string else 1
        advance = width if range_.mmio else 0
        self.folds = [self.checksum]
        if is_write:
            words = []
            for _ in range(length):
                state = step(state)
                words.append(state)
            data = b"".join(word.to_bytes(4, "little") for word in words)
            for element in range(length):
                value = int.from_bytes(data[element * width : (element + 1) * width], "little")
                self._write(range_.mmio, address + element * advance, width, value)
        else:
            for element in range(length):
                value = self._read(range_.mmio, address + element * advance, width)
                self.checksum = (self.checksum ^ value) * 16777619 & MASK
                self.folds.append(self.checksum)
        self._state = state
        self.made += 1


def random_accesses(
    vcpu: int,
    count: int,
    seed: int,
    ranges: list[AccessRange],
    strides: tuple[int, int],
    read: Read,
    write: Write,
) -> int:
    """Makes the `count` accesses of `vcpu`; `strides`: ports', memory's. Returns the checksum."""
    model = RandomAccesses(vcpu, seed, ranges, strides, read, write)
    for _ in range(count):
        model.make_one()
    return model.checksum


def checksum_sequence(vcpu: int, devices: int, count: int) -> Iterator[tuple[int, int]]:
    """The writes of `checksum` by `vcpu`, in order: (device number, 32-bit value)."""
    state = (vcpu + 1) * 0x9E37_79B9 & MASK
    for _ in range(count):
        for device in range(devices):
            state = step(state)
            yield device, state
