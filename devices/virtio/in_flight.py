"""`InFlight`: which chains of a queue its device has taken and not given back, for a successor to do again.

Facts. The used ring says what was given back, in guest RAM; that a chain was taken, nothing there says. A
device gives chains back in any order.

Consequences. Each head has a word: its turn while it is in flight, 0 otherwise. Before the used index tells
that it is back, the word says so; whether the index has told, a successor sees by the index.
"""

from __future__ import annotations

from typing import Final

_USED, _TURNS, _HEADS = range(3)
_RETURNING: Final = 1 << 63


class InFlight:
    """The words of a queue of `size` entries, in a part of a device's persistent area."""

    def __init__(self, memory: memoryview) -> None:
        """`memory`: `area_bytes(size)`."""
        self._words = memory.cast("Q")
        self._returning: list[int] = []

    def begin(self, used: int, heads: list[int]) -> None:
        """The queue is at this used index (16 bits), with these chains in flight, oldest first."""
        self._words[_USED] = used
        for at in range(_TURNS, len(self._words)):
            self._words[at] = 0
        for head in heads:
            self.taken(head)

    def taken(self, head: int) -> None:
        """A chain is in flight."""
        words = self._words
        words[_TURNS] += 1
        words[_HEADS + head] = words[_TURNS]

    def returning(self, head: int) -> None:
        """Its used element is there, and the used index is about to tell of it."""
        self._words[_HEADS + head] |= _RETURNING
        self._returning.append(head)

    def returned(self, used: int) -> None:
        """The used index tells of what was returning."""
        for head in self._returning:
            self._words[_HEADS + head] = 0
        self._words[_USED] = used
        self._returning.clear()

    def resume(self, used: int) -> list[int]:
        """What a predecessor left in flight, oldest first, where the used index is at `used`."""
        words = self._words
        turns = {head: words[_HEADS + head] for head in range(len(words) - _HEADS) if words[_HEADS + head]}
        self._returning = [head for head, turn in turns.items() if turn & _RETURNING]
        if words[_USED] != used:
            turns = {head: turn for head, turn in turns.items() if not turn & _RETURNING}
            self.returned(used)
        for head in self._returning:  # the index has not told of them
            words[_HEADS + head] &= ~_RETURNING
        self._returning.clear()
        return sorted(turns, key=lambda head: turns[head] & ~_RETURNING)


def area_bytes(size: int) -> int:
    """Bytes of a queue of at most `size` entries."""
    return 8 * (_HEADS + size)


MOST_AREA_BYTES: Final = 16 * area_bytes(256)
"""Of a device with as many queues as any type has, each as large as any."""
KEPT: Final = -1
"""In the place of a `QueueState`'s next_avail: the area says where the queue is."""
