"""The supervisor: one thread of the VMM that starts workers and shards, watches them, and mends what dies.

`loop` is the thread; `shard_process` the VMM's side of one shard, `interpreter` its process; `shard_keeper`
starts shards and successors, `spare` keeps an interpreter warm for that; `succession` and `recovery` settle
what a dead shard left in flight; `hang` kills what hangs.
"""

from shardio.supervisor.loop import Supervisor
from shardio.supervisor.shard_process import DeviceRecord, ShardProcess

__all__ = ["DeviceRecord", "ShardProcess", "Supervisor"]
