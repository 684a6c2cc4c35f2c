"""The fabric: the shared memory between vCPU workers and shards, seen from Python.

The layout and every protocol over it are in `native/`; these classes make segments, hand them to processes,
and read counters. `Fabric` is the segment, `Client` a vCPU's end of it, `Owner` a shard's.
"""

from shardio.fabric.client import Client, Outcome
from shardio.fabric.owner import Owner, Turn
from shardio.fabric.segment import Fabric
from shardio.fabric.statistics import AccessStatistics, ShardCounters, VcpuCounters

__all__ = [
    "AccessStatistics",
    "Client",
    "Fabric",
    "Outcome",
    "Owner",
    "ShardCounters",
    "Turn",
    "VcpuCounters",
]
