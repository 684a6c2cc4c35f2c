"""Kills the shard that a vCPU has waited for too long.

Facts. A shard hangs in many ways: its GIL held, an endless loop, SIGSTOP. It cannot be asked; what can be
seen is what its vCPUs wait for, and how much it has taken.

Consequences. A shard hangs when a vCPU waits for it, it has taken nothing for a deadline, and is not at
making its devices; or when, however busy it is, the same access is unanswered for (vCPUs + 1) deadlines.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from shardio._core import lib
from shardio.supervisor.context import Context
from shardio.vcpu import Vcpu

START_S = 30.0
"""How long a shard may take to make its devices before that counts as hanging."""

log = logging.getLogger("shardio.supervisor")


@dataclass
class _Wait:
    """What a vCPU waits for (`access`, of the shard `target`), since when, and when that shard last moved."""

    access: int
    target: int
    progress: int
    began: float
    moved: float


class HangWatch:
    """Looks at what every vCPU waits for. `deadline` in seconds."""

    def __init__(self, context: Context, deadline: float) -> None:
        self._context = context
        self._deadline = deadline
        self._waits: dict[int, _Wait] = {}

    def look(self, now: float) -> None:
        """Kill what hangs; `now` in seconds of the monotonic clock."""
        for vcpu in self._context.vcpus:
            self._look_at(vcpu, now)

    def _look_at(self, vcpu: Vcpu, now: float) -> None:
        access, target = int(lib.sio_client_pending(vcpu.client)), int(vcpu.client.target)
        if not access or vcpu.ended or target >= len(self._context.shards):
            self._waits.pop(vcpu.index, None)
            return
        shard = self._context.shards[target]
        progress = self._context.fabric.progress(target)
        wait = self._waits.get(vcpu.index)
        starting = not shard.restored and now - shard.spawned_at < START_S
        if wait is None or (wait.access, wait.target) != (access, target) or starting:
            self._waits[vcpu.index] = _Wait(access, target, progress, now, now)
            return
        if wait.progress != progress:
            wait.progress, wait.moved = progress, now
        patience = self._deadline * (len(self._context.vcpus) + 1)
        if shard.alive and (now - wait.moved > self._deadline or now - wait.began > patience):
            waited = now - wait.began
            log.error(
                "shard %s has not answered vCPU %d for %.1f s; killing it", shard.name, vcpu.index, waited
            )
            del self._waits[vcpu.index]
            shard.kill()
