"""`Doorbell`: a write that a device wants as an event instead of an access (KVM_IOEVENTFD).

A device lists its doorbells in the attribute `doorbells`; the shard asks the VMM to bind an eventfd to each
and calls `device.doorbell(index)`, index being the position in that list, when it fires. The write then
never becomes a userspace exit. A doorbell that nothing was bound to arrives as an ordinary write.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Doorbell:
    """A write of `length` bytes at `offset` of the device's range, of the value `datamatch` or, if None, of
    any.

    `length` is 1, 2, 4 or 8, or 0 for any length (KVM_CAP_IOEVENTFD_ANY_LENGTH; then without datamatch).
    Raises ValueError for a negative offset, another length, or a datamatch that the length cannot hold.

    >>> Doorbell(offset=0x50, length=4, datamatch=1)
    Doorbell(offset=80, length=4, datamatch=1)
    """

    offset: int
    length: int
    datamatch: int | None = None

    def __post_init__(self) -> None:
        if self.offset < 0:
            raise ValueError(
                f"doorbell offset {self.offset} is negative; it counts from the start of the range"
            )
        if self.length not in (0, 1, 2, 4, 8):
            raise ValueError(f"doorbell length {self.length} is not 1, 2, 4 or 8 bytes, or 0 for any")
        if self.datamatch is not None and not (self.length and 0 <= self.datamatch < 1 << (8 * self.length)):
            raise ValueError(f"doorbell datamatch {self.datamatch:#x} does not fit in {self.length} bytes")
