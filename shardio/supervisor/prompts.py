"""Lends the terminal of the machine's user to shards whose devices stop at `breakpoint()`, one at a time.

All of it is the supervisor's thread's. A shard that has the terminal, or waits for it, hangs by no measure.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from shardio.supervisor.shard_process import ShardProcess


class TerminalLender(Protocol):
    """Whoever has the terminal: `shardio run`."""

    def lend(self, where: str) -> int | None:
        """Let go of it for a prompt at this place: its descriptor, which stays the lender's. None: there is
        none.
        """

    def take_back(self) -> None:
        """It is the lender's again."""


class Prompts:
    """The queue for `lender`'s terminal; None where there is none."""

    def __init__(self, lender: TerminalLender | None = None) -> None:
        self.lender = lender
        self._waiting: deque[tuple[ShardProcess, str]] = deque()
        self._holder: ShardProcess | None = None

    def holds(self, shard: ShardProcess) -> bool:
        """Whether this shard stands at a prompt, or is about to."""
        return shard is self._holder or any(shard is waiting for waiting, _ in self._waiting)

    def asked(self, shard: ShardProcess, where: str) -> None:
        """A shard wants the terminal, and hears when it has it."""
        if not self.holds(shard):
            self._waiting.append((shard, where))
            self._lend()

    def returned(self, shard: ShardProcess) -> None:
        """A shard gives it back, or has died. Nothing where it does not have it."""
        self._waiting = deque(waiting for waiting in self._waiting if waiting[0] is not shard)
        if shard is self._holder:
            self._holder = None
            if self.lender is not None:
                self.lender.take_back()
            self._lend()

    def _lend(self) -> None:
        while self._waiting and self._holder is None:
            shard, where = self._waiting.popleft()
            fd = None if self.lender is None else self.lender.lend(f"{shard.name}: {where}")
            if fd is not None:
                self._holder = shard
            shard.lend_terminal(fd)
