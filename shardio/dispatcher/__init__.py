"""`Dispatcher`: the sharded dispatcher, whatever runs the vCPUs, and the frozen values that it gives.

`dispatcher` is the object, `vcpus` and `observed` are parts of it; `arguments` checks what `add` is given,
`device` is what is known of each device then; `claims` what devices claim before anything runs, `devices`
what becomes of them then; `placement` which device goes to which shard and who is pinned where; `records`
what a shard is told of a device, `requests` what it is asked; `life` its states; `events` and `statistics`
the values.
"""

from shardio.dispatcher.device import DeviceHandle, IrqMode
from shardio.dispatcher.dispatcher import Dispatcher
from shardio.dispatcher.events import EventStream
from shardio.dispatcher.placement import Shard
from shardio.dispatcher.statistics import DeviceStatistics, ExitInfo, MachineStatistics, ShardStatistics

__all__ = [
    "DeviceHandle",
    "DeviceStatistics",
    "Dispatcher",
    "EventStream",
    "ExitInfo",
    "IrqMode",
    "MachineStatistics",
    "Shard",
    "ShardStatistics",
]
