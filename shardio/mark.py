"""The name of an access, and `Mark`, a number that counts together with such a name.

For devices whose state outlives their shard (shardio.persistent), where one number says all that an
access has changed. The core writes the same words (native/fast_registers.c).
"""

from __future__ import annotations

Name = tuple[int, int]
"""Of an access: the request, by its number in the shard's journal, and the element of that."""
_VCPU_SHIFT = 48  # of SIO_JOURNAL in native/layout.h


def same_vcpu(one: Name, other: Name) -> bool:
    """Whether both are accesses of the same vCPU, which asks for one after the other."""
    return one[0] >> _VCPU_SHIFT == other[0] >> _VCPU_SHIFT


class Mark:
    """One number that counts together with the name of the access that set it, in seven words of an area."""

    BYTES = 56

    def __init__(self, memory: memoryview) -> None:
        """`memory`: `BYTES`, aligned to 8; zeros where nothing was set."""
        self._words = memory.cast("Q")

    def get(self) -> tuple[Name, int]:
        """The access that set it, and what it set."""
        at = 1 + 3 * (self._words[0] & 1)
        return (self._words[at], self._words[at + 1]), self._words[at + 2]

    def set(self, name: Name, value: int) -> None:
        """From the last of these stores on, this is what counts."""
        words = self._words
        count = words[0] + 1
        at = 1 + 3 * (count & 1)
        words[at], words[at + 1] = name
        words[at + 2] = value
        words[0] = count


class Repeat:
    """The access that set a mark last, as long as it may be asked for again; `name`: None for none."""

    def __init__(self, name: Name | None) -> None:
        self._name = name

    def __bool__(self) -> bool:
        return self._name is not None

    def is_it(self, asked: Name) -> bool:
        """Whether the access that begins, `asked`, is that one. What its vCPU asks first tells."""
        if self._name is None or not same_vcpu(asked, self._name):
            return False
        repeated, self._name = asked == self._name, None
        return repeated
