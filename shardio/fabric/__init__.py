"""The fabric: the shared memory between vCPU workers and shards, seen from Python.

The layout and every protocol over it are in `native/`; these classes make segments, hand them to processes,
and read counters. `Fabric` is the segment, `Port` a vCPU's end of it, `Owner` a shard's; each end is
imported on first use, by the process that has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardio.fabric.segment import Fabric
from shardio.fabric.statistics import AccessStatistics, LastAccess, ShardCounters, VcpuCounters
from shardio.lazy import lazily

if TYPE_CHECKING:
    from shardio.fabric.calls import Outcome as Outcome
    from shardio.fabric.owner import Owner as Owner
    from shardio.fabric.owner import Turn as Turn
    from shardio.fabric.port import Port as Port

_LAZY = {"Outcome": "calls", "Owner": "owner", "Port": "port", "Turn": "owner"}

__all__ = [
    "AccessStatistics",
    "Fabric",
    "LastAccess",
    "Outcome",
    "Owner",
    "Port",
    "ShardCounters",
    "Turn",
    "VcpuCounters",
]


__getattr__, __dir__ = lazily(__name__, _LAZY)
