"""SIGKILLs of the shards of a machine that `shardio run` runs, as a stranger to it would send them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

EVERY_S = 0.2
NO_LIMIT = "[machine]\nmax_deaths = 0\n"
"""What a machine is told that is to bear so many deaths."""


def shards_of(pid: int) -> list[int]:
    """The processes of a VMM that are shards by now: a spare, or one that is just starting, has no name."""
    found = []
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task").glob("*/children")
        for child in " ".join(each.read_text() for each in children).split():
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{child}/comm").read_text()
                if name.startswith("shardio:") and not name.startswith("shardio:vcpu"):
                    found.append(int(child))
    return found


class Killer:
    """Kills a random one of `shards` shards of the VMM `pid` every `EVERY_S` after all were there again,
    while the context lasts; on a host that needs longer to start a successor, after as long as that took:
    the guest has to come to its own at times. `kills` counts.
    """

    def __init__(self, pid: int, shards: int, *, seed: int = 1) -> None:
        self.kills = 0
        self._pid, self._shards = pid, shards
        self._chance = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._kill, name="killer")

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _kill(self) -> None:
        for victim in self._victims():
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                self.kills += 1

    def _victims(self) -> Iterator[int]:
        killed = time.monotonic()
        while not self._over.wait(0.01):
            shards = shards_of(self._pid)
            if len(shards) == self._shards:
                if self._over.wait(max(EVERY_S, time.monotonic() - killed)):
                    return
                killed = time.monotonic()
                yield self._chance.choice(shards)
