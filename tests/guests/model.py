"""What the guests `random_access` and `checksum` do, again, on the host: their generator and their accesses.

`random_accesses` makes the accesses of one vCPU, in order, against two callbacks, and returns the checksum
that the guest must have in its results. A string is so many single accesses: a port's all at one address,
memory's in a row.
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
    state = (seed + vcpu * 0x9E37_79B9) & MASK
    checksum = 2166136261
    for _ in range(count):
        state = step(state)
        range_ = ranges[(state >> 24) * len(ranges) >> 8]
        width, is_write = WIDTHS[state >> 16 & 3], bool(state >> 18 & 1)
        is_string = range_.strings and bool(state >> 19 & 1)
        state = step(state)
        address = range_.base + (state >> 16 & range_.mask) + vcpu * strides[range_.mmio]
        length = (state >> 28 & 7) + 1 if is_string else 1
        advance = width if range_.mmio else 0
        if is_write:
            words = []
            for _ in range(length):
                state = step(state)
                words.append(state)
            data = b"".join(word.to_bytes(4, "little") for word in words)
            for element in range(length):
                value = int.from_bytes(data[element * width : (element + 1) * width], "little")
                write(range_.mmio, address + element * advance, width, value)
        else:
            for element in range(length):
                value = read(range_.mmio, address + element * advance, width)
                checksum = (checksum ^ value) * 16777619 & MASK
    return checksum


def checksum_sequence(vcpu: int, devices: int, count: int) -> Iterator[tuple[int, int]]:
    """The writes of `checksum` by `vcpu`, in order: (device number, 32-bit value)."""
    state = (vcpu + 1) * 0x9E37_79B9 & MASK
    for _ in range(count):
        for device in range(devices):
            state = step(state)
            yield device, state
