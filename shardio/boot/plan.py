"""`Plan`: what a loader will write, and where. Nothing is written before all of it is known to fit.

Each part has a place of its own: one that the image names (`put`), or the first that is free (`place`). Parts
that overlap each other, what was loaded before, or the tables of the entry mode are refused with both ranges,
and so is a part that leaves RAM.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shardio.entry import BOOT_TABLES
from shardio.errors import ImageError
from shardio.memory import HIGH_MEMORY_BASE, GuestMemory

LOW: Final = range(0x1000, BOOT_TABLES)
"""Where small tables go first: above the BIOS data area, below the boot tables."""
ONE_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image in guest memory, or a part of one: its `name`, and the addresses that it takes."""

    name: str
    where: range

    def refuse_overlap(self, what: str, taken: range) -> None:
        """Raises `ImageError` where `what`, which is written at `taken`, would overwrite a part of it."""
        if self.where.start < taken.stop and taken.start < self.where.stop:
            raise ImageError(
                self.name,
                f"at {self.where.start:#x} to {self.where.stop - 1:#x} lies over {what} "
                f"at {taken.start:#x} to {taken.stop - 1:#x}",
                "load it elsewhere",
            )


class Plan:
    """What is to be written into `memory`, beside what is there already (`taken`)."""

    def __init__(self, memory: GuestMemory, taken: Iterable[Loaded] = ()) -> None:
        self.memory = memory
        self.loaded: list[Loaded] = []
        self._taken = list(taken)
        self._writes: list[tuple[int, bytes, int]] = []

    @property
    def low_end(self) -> int:
        """Where RAM below 4 GiB ends."""
        return max(region.end for region in self.memory.regions if region.guest_address < HIGH_MEMORY_BASE)

    def reserve(self, name: str, where: range) -> None:
        """Nothing may be put at `where`, which another one writes. Raises `ImageError` for what is there."""
        for part in [*self._taken, *self.loaded]:
            part.refuse_overlap(name, where)
        if where:
            self._taken.append(Loaded(name, where))

    def put(self, name: str, at: int, data: bytes, size: int = 0) -> int:
        """`data` goes to `at`, zeros behind it up to `size` bytes; returns `at`."""
        where = range(at, at + max(size, len(data)))
        part = Loaded(name, where)
        if not any(region.guest_address <= at and where.stop <= region.end for region in self.memory.regions):
            known = ", ".join(str(region) for region in self.memory.regions)
            raise ImageError(
                name,
                f"at {where.start:#x} to {where.stop - 1:#x} lies outside RAM, which is {known}",
                "give the machine more memory",
            )
        for other in [*self._taken, *self.loaded]:
            part.refuse_overlap(other.name, other.where)
        self.loaded.append(part)
        self._writes.append((at, data, len(where) - len(data)))
        return at

    def place(self, name: str, data: bytes) -> int:
        """`data` goes to the lowest free place, 16-byte aligned; returns where that is."""
        return self.put(name, self._lowest(name, len(data)), data)

    def place_high(self, name: str, data: bytes, end: int) -> int:
        """`data` goes to the highest free place below `end` and 4 GiB, page-aligned; returns where."""
        at = (min(end, self.low_end) - len(data)) & ~0xFFF
        for where in sorted((part.where for part in [*self._taken, *self.loaded]), key=lambda w: -w.stop):
            if where.start < at + len(data) and at < where.stop:
                at = (where.start - len(data)) & ~0xFFF
        if at < ONE_MIB:
            raise self._no_room(name, len(data))
        return self.put(name, at, data)

    def commit(self) -> tuple[Loaded, ...]:
        """Writes it all."""
        for at, data, zeros in self._writes:
            self.memory.write(at, data)
            self.memory.write(at + len(data), bytes(zeros))
        return tuple(self.loaded)

    def _lowest(self, name: str, size: int) -> int:
        taken = sorted((part.where for part in [*self._taken, *self.loaded]), key=lambda w: w.start)
        for area in (LOW, range(ONE_MIB, self.low_end)):
            at = area.start
            for where in taken:
                if where.start < at + size and at < where.stop:
                    at = (where.stop + 15) & ~15
            if at + size <= min(area.stop, self.low_end):
                return at
        raise self._no_room(name, size)

    def _no_room(self, name: str, size: int) -> ImageError:
        known = ", ".join(f"{part.where.start:#x}-{part.where.stop - 1:#x}" for part in self.loaded)
        return ImageError(
            name,
            f"of {size:#x} bytes finds no room below {self.low_end:#x} beside {known or 'the boot tables'}",
            "give the machine more memory",
        )
