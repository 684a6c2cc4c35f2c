"""A pool of numbers, 0 to `last`, handed out as intervals: what every kind of resource comes down to.

Two sets of intervals decide. *Taken* ones have a holder, never overlap and are released exactly as they were
taken. *Excluded* ones are where the pool never puts anything of its own accord, but where a fixed interval
may still be taken by its number. The search is first fit from the lowest number, so the same calls give the
same answers.
"""

from __future__ import annotations

from bisect import bisect_right


class IntervalPool:
    """The numbers 0 to `last`.

    >>> pool = IntervalPool(last=99)
    >>> pool.exclude(0, 10)
    >>> pool.find(size=4, align=8, first=0, last=99)
    16
    >>> pool.take(16, 4)
    >>> pool.find(size=4, align=4, first=0, last=99), pool.find(size=4, align=4, first=12, last=19)
    (12, 12)
    >>> pool.holder(19, 2)
    (16, 4)
    """

    def __init__(self, last: int) -> None:
        self.last = last
        self._taken = _Intervals()
        self._excluded = _Intervals()

    def exclude(self, base: int, size: int) -> None:
        """Keep `find` out of an interval. Exclusions may overlap each other and what is taken."""
        self._excluded.merge(base, base + size)

    def find(self, size: int, align: int, first: int, last: int) -> int | None:
        """The lowest base, a multiple of `align`, from which `size` free numbers lie in `first` to `last`.

        None where there is none. Nothing is taken.
        """
        limit = min(last, self.last) + 1
        base = _align_up(first, align)
        while base + size <= limit:
            end = base + size
            blocked_to = max(self._taken.end_within(base, end), self._excluded.end_within(base, end))
            if not blocked_to:
                return base
            base = _align_up(blocked_to, align)
        return None

    def holder(self, base: int, size: int) -> tuple[int, int] | None:
        """The lowest taken interval (base, size) that shares a number with this one, or None."""
        return self._taken.overlapping(base, base + size)

    def take(self, base: int, size: int) -> None:
        """Take an interval that has no `holder`, excluded or not."""
        self._taken.insert(base, base + size)

    def release(self, base: int, size: int) -> bool:
        """Give back what was taken as exactly this interval; False where it was not."""
        return self._taken.remove(base, base + size)


class _Intervals:
    """Disjoint half-open intervals, sorted, in two parallel lists."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def end_within(self, start: int, end: int) -> int:
        """The end of the last interval that meets [start, end), or 0: from there on a search may go on."""
        index = bisect_right(self._starts, end - 1) - 1
        return self._ends[index] if index >= 0 and self._ends[index] > start else 0

    def overlapping(self, start: int, end: int) -> tuple[int, int] | None:
        """(base, size) of the first interval that meets [start, end), or None."""
        index = bisect_right(self._ends, start)
        if index < len(self._starts) and self._starts[index] < end:
            return self._starts[index], self._ends[index] - self._starts[index]
        return None

    def insert(self, start: int, end: int) -> None:
        """Add an interval that meets no other."""
        index = bisect_right(self._starts, start)
        self._starts.insert(index, start)
        self._ends.insert(index, end)

    def remove(self, start: int, end: int) -> bool:
        """Remove exactly this interval; False where it is not there."""
        index = bisect_right(self._starts, start) - 1
        if index < 0 or self._starts[index] != start or self._ends[index] != end:
            return False
        del self._starts[index], self._ends[index]
        return True

    def merge(self, start: int, end: int) -> None:
        """Add an interval and make one of all that meet it."""
        while (met := self.overlapping(start, end)) is not None:
            self.remove(met[0], met[0] + met[1])
            start, end = min(start, met[0]), max(end, met[0] + met[1])
        self.insert(start, end)


def _align_up(value: int, align: int) -> int:
    return -(-value // align) * align
