"""How much to measure: rounds of a fixed time, as many pairs of blocks in each as fit, and who is told
of the progress.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from shardio.bench.results import Rounds

MIN_PAIRS = 3
START_S = 0.3
"""What starting the processes of a figure takes, about."""


def _nobody(_seconds: float) -> None:
    pass


class Effort(NamedTuple):
    """`rounds` of `seconds` each, of pairs of blocks of `n` operations. `progress` is told of seconds
    that have passed, but never in the middle of a block.
    """

    rounds: int = 5
    seconds: float = 0.8
    n: int = 4096
    progress: Callable[[float], None] = _nobody

    @property
    def budget(self) -> float:
        """Seconds that a figure takes, starting processes aside."""
        return self.rounds * self.seconds

    def pairs(self, *collected: Rounds) -> Iterator[None]:
        """Once for each pair to measure, opening rounds in `collected` as it goes."""
        for _ in range(self.rounds):
            for rounds in collected:
                rounds.begin()
            began = last = time.monotonic()
            count = 0
            while count < MIN_PAIRS or last - began < self.seconds:
                yield
                count += 1
                now = time.monotonic()
                self.progress(min(now - last, self.seconds))
                last = now
