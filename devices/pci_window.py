"""`BarWindow`: which endpoint of a bridge answers which address of the bridge's window.

Facts. A guest may place a base address register (BAR) anywhere, on top of another one too. PCI 3.0, section
6.2.5.1, knows no refusal: a BAR holds what was written, and decodes when nothing is in its way any more.

Consequences. A BAR that is outside the window, or that meets another, claims nothing and waits. Whoever
came first keeps the addresses; when a BAR goes away, those that wait are tried again in the order in which
they were placed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from shardio.bus import MmioBus
from shardio.errors import DeviceOverlap, InvalidAddress, InvalidRange
from shardio.range import MmioRange
from shardio.rate import guest_log

log = logging.getLogger("shardio.devices.pci")

E = TypeVar("E")
_LAST_32_BIT = 0xFFFF_FFFF


class BarWindow(Generic[E]):
    """The BARs of a bridge's endpoints, one a slot. `span`: the window's addresses, None where nobody told.
    """

    def __init__(self) -> None:
        self.span: MmioRange | None = None
        self._bus: MmioBus[E] = MmioBus()
        self._wanted: dict[int, tuple[int, int, E]] = {}  # slot -> base, size, endpoint; oldest first
        self._at: dict[int, int] = {}

    def find(self, address: int, length: int) -> tuple[int, E] | None:
        """The endpoint that answers all of `length` bytes from `address`, and the distance from its BAR."""
        found = self._bus.device(address)
        if found is None or address + length - 1 > found[0].last:
            return None
        return address - int(found[0].base), found[1]

    def at(self, slot: int) -> int | None:
        """Where the slot's BAR answers; None where it does not."""
        return self._at.get(slot)

    def order(self) -> Iterator[int]:
        """The slots whose BARs decode, those that answer first: placing them in this order gives this
        window.
        """
        yield from self._at
        yield from (slot for slot in self._wanted if slot not in self._at)

    def place(self, slot: int, endpoint: E, base: int | None, size: int) -> list[int]:
        """The slot's BAR of `size` bytes is at `base` now; None: it does not decode. Gives the slots that
        answer elsewhere from now on, this one first.
        """
        self._wanted.pop(slot, None)
        old = self._at.pop(slot, None)
        if base is None:
            self._forget(old)
            return [slot, *self._retry()]
        self._wanted[slot] = (base, size, endpoint)
        if refusal := self._claim(slot, old):
            guest_log.warning(log, "the BAR of slot %d answers nothing: %s", slot, refusal)
            self._forget(old)
        return [slot, *self._retry()]

    def free(self, size: int, taken: Iterable[MmioRange]) -> int | None:
        """The lowest multiple of `size` in the window where a 32-bit BAR of `size` bytes meets none of
        `taken`.
        """
        if self.span is None:
            return None
        held = sorted(taken)
        base = -(-int(self.span.base) // size) * size
        while base + size - 1 <= min(int(self.span.last), _LAST_32_BIT):
            candidate = MmioRange(base, size)
            met = next((each for each in held if each.overlaps(candidate)), None)
            if met is None:
                return base
            base = -(-(int(met.last) + 1) // size) * size
        return None

    def _claim(self, slot: int, old: int | None = None) -> str:
        """Let the slot's BAR answer where it is wanted, if that can be. Gives why not, or ""."""
        base, size, endpoint = self._wanted[slot]
        try:
            span = MmioRange(base, size)
            if self.span is not None and span not in self.span:
                return f"{span} is outside the window {self.span}"
            if old is None:
                self._bus.register(span, endpoint)
            else:
                self._bus.move(old, base)
        except (DeviceOverlap, InvalidRange, InvalidAddress) as error:
            return str(error)
        self._at[slot] = base
        return ""

    def _retry(self) -> list[int]:
        """What waits may have a place by now."""
        waiting = [slot for slot in self._wanted if slot not in self._at]
        return [slot for slot in waiting if not self._claim(slot)]

    def _forget(self, old: int | None) -> None:
        if old is not None:
            self._bus.deregister(old)
