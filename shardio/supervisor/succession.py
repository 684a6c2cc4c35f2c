"""What becomes of a shard that died: its requests are settled, then it gets a successor or is given up.

Facts. Only the supervisor's thread writes the address map. An owner that is dead and reaped writes nothing
any more, so its lines may be settled in its place (`recovery`).

Consequences. A range whose request has killed two owners is quarantined before the guest goes on. A shard
that has died too often is given up: all its ranges are quarantined, and what is still on its way is refused
at every tick.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from shardio._core import lib
from shardio.supervisor.context import Context
from shardio.supervisor.recovery import Policy, Recovery
from shardio.supervisor.shard_process import ShardProcess

log = logging.getLogger("shardio.supervisor")


class Succession:
    """Decides for the shards of one machine. `policy(range index, write)`."""

    def __init__(self, context: Context, policy: Callable[[int, bool], Policy]) -> None:
        self._context = context
        self._recovery = Recovery(context.fabric, policy)

    def settle(self, shard: ShardProcess) -> bool:
        """Settle what a dead and reaped shard left in flight. False: it died too often and is given up."""
        self._recovery.settle(shard.index, lambda ranges: self._quarantine_ranges(shard, ranges))
        if shard.dies_too_often:
            self._give_up(shard)
            return False
        context = self._context
        for worker in context.workers:
            posted = context.posted(worker.index, shard.index)
            lib.sio_recover_taken(context.fabric.view, shard.index, worker.index, posted)
        return True

    def refuse(self, shard: ShardProcess) -> None:
        """Refuse what has been asked of a shard that was given up."""
        self._recovery.refuse_all(shard.index, lambda vcpu: self._context.posted(vcpu, shard.index))

    def _quarantine_ranges(self, shard: ShardProcess, ranges: set[int]) -> None:
        self._context.routes.quarantine(ranges)
        self._context.routes.publish()
        log.error("shard %s: a request killed two owners; its range is quarantined", shard.name)

    def _give_up(self, shard: ShardProcess) -> None:
        shard.quarantined = True
        self._context.routes.drop_shard(shard.index)
        self._context.routes.publish()
        self.refuse(shard)
        log.error("shard %s died %d times; its ranges are quarantined", shard.name, len(shard.deaths))
