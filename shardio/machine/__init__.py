"""`Machine`: the one object that a VMM author builds, and the frozen values that it gives.

`machine` is the object, `engine` its running half; `devices` what it knows of each device; `placement` which
device goes to which shard and who is pinned where; `statistics` the values.
"""

from shardio.machine.devices import DeviceHandle
from shardio.machine.machine import Machine
from shardio.machine.placement import Shard
from shardio.machine.statistics import DeviceStatistics, ExitInfo, MachineStatistics, ShardStatistics

__all__ = [
    "DeviceHandle",
    "DeviceStatistics",
    "ExitInfo",
    "Machine",
    "MachineStatistics",
    "Shard",
    "ShardStatistics",
]
