"""The fabric: the shared memory between vCPU workers and shards, seen from Python.

The layout and every protocol over it are in `native/`; these classes make segments, hand them to processes,
and read counters. `Fabric` is the segment, `Client` a vCPU's end of it, `Owner` a shard's; each end is
imported on first use, by the process that has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardio.fabric.segment import Fabric
from shardio.fabric.statistics import AccessStatistics, ShardCounters, VcpuCounters
from shardio.lazy import lazily

if TYPE_CHECKING:
    from shardio.fabric.client import Client as Client
    from shardio.fabric.client import Outcome as Outcome
    from shardio.fabric.owner import Owner as Owner
    from shardio.fabric.owner import Turn as Turn

_LAZY = {"Client": "client", "Outcome": "client", "Owner": "owner", "Turn": "owner"}

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


__getattr__, __dir__ = lazily(__name__, _LAZY)
