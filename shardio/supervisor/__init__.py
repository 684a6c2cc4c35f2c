"""The supervisor: one thread of the VMM that starts vCPUs and shards, watches them, and mends what dies.

`loop` is the thread; `shard_process` the VMM's side of one shard, `interpreter` its process; `failover`
starts shards and successors and settles what a dead one left in flight, `spare` keeps an interpreter warm
for that; `hang` kills what hangs; `events` tell of all of it.
"""

from shardio.supervisor.loop import Supervisor
from shardio.supervisor.shard_process import DeviceRecord, ShardProcess

__all__ = ["DeviceRecord", "ShardProcess", "Supervisor"]
