"""`Counts`: how often the interrupts of one device were raised, for whoever looks at a machine."""

from __future__ import annotations

RAISED, DROPPED = range(2)


class Counts:
    """Two numbers in `cells`, ordinary ones or words of shared memory, of which this process is the only
    writer: how often the hypervisor was told to raise an interrupt (RAISED), and how many triggers raised
    none of their own, because the interrupt was disabled, or a mask held one back already (DROPPED).

    `held`: kept as long as this; what the cells lie in.
    """

    __slots__ = ("_held", "cells")

    def __init__(self, cells: list[int] | memoryview | None = None, held: object = None) -> None:
        self.cells: list[int] | memoryview = [0, 0] if cells is None else cells
        self._held = held

    @property
    def raised(self) -> int:
        """The first number."""
        return self.cells[RAISED]

    @property
    def dropped(self) -> int:
        """The second."""
        return self.cells[DROPPED]
