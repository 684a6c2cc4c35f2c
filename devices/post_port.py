"""`PostPort`: the power-on self-test codes that firmware writes to port 0x80, kept for whoever asks.

>>> post = PostPort()
>>> post.write(0, 1, 0xAA)
>>> post.statistics().codes
(170,)
"""

from __future__ import annotations

from collections import deque

import msgspec

from shardio.device import MutDevicePio
from shardio.devices.options import in_range


class PostStatistics(msgspec.Struct, frozen=True):
    """`writes` so far, and the last `codes`, oldest first."""

    writes: int
    codes: tuple[int, ...]


class PostPort(MutDevicePio):
    """Keeps the last codes; a read gives the last one, 0 before the first. Guests also write here to pass
    time.
    """

    pio_size = 1
    state_type = PostStatistics
    reads_change = False
    persistent = 64

    def __init__(self, keep: int = 64) -> None:
        """`keep`: how many codes to hold (1 to 65536). Raises DeviceOptionError outside that."""
        self._codes: deque[int] = deque(maxlen=in_range(keep, 1, 65536, device="PostPort", option="keep"))
        self._writes = 0

    def read(self, offset: int, size: int) -> int:
        """The last code."""
        return self._codes[-1] if self._codes else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """A code."""
        self._writes += 1
        self._codes.append(value)

    def statistics(self) -> PostStatistics:
        """How many codes came, and the last of them."""
        return PostStatistics(self._writes, tuple(self._codes))

    def snapshot(self) -> PostStatistics:
        """The same: it is all the state there is."""
        return self.statistics()

    def kept(self) -> PostStatistics:
        """What the guest can see of it."""
        return PostStatistics(self._writes, (self._codes[-1],) if self._codes else ())

    def restore(self, state: PostStatistics) -> None:
        """Go on from `state`."""
        self._writes = state.writes
        self._codes.clear()
        self._codes.extend(state.codes)
