"""shardio answers a virtual machine's device accesses in other processes, over shared-memory rings.

This module is the public face: the in-process vocabulary (addresses, ranges, buses, devices, `IoManager`) and
every error at once; resources, and what needs the compiled core or a running VM, on first use, so that a
device, its unit tests and a shard that must serve soon import in milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardio import errors
from shardio.address import BusAddress, MmioAddress, PioAddress, Space
from shardio.bus import Bus, MmioBus, PioBus
from shardio.device import DeviceHost, DeviceMmio, DevicePio, MutDeviceMmio, MutDevicePio
from shardio.errors import *  # noqa: F403 (errors.__all__ is every error)
from shardio.io_manager import IoManager, MmioManager, PioManager
from shardio.lazy import lazily
from shardio.range import BusRange, MmioRange, PioRange
from shardio.version import __version__ as __version__

if TYPE_CHECKING:
    from shardio.dispatcher import DeviceHandle as DeviceHandle
    from shardio.dispatcher import DeviceStatistics as DeviceStatistics
    from shardio.dispatcher import Dispatcher as Dispatcher
    from shardio.dispatcher import ExitInfo as ExitInfo
    from shardio.dispatcher import MachineStatistics as MachineStatistics
    from shardio.dispatcher import Shard as Shard
    from shardio.dispatcher import ShardStatistics as ShardStatistics
    from shardio.fabric import Fabric as Fabric
    from shardio.fabric import Outcome as Outcome
    from shardio.fabric import Port as Port
    from shardio.headers import get_include as get_include
    from shardio.interrupt import EventFdTrigger as EventFdTrigger
    from shardio.interrupt import RecordingTrigger as RecordingTrigger
    from shardio.interrupt import Trigger as Trigger
    from shardio.kvm import Kvm as Kvm
    from shardio.kvm import Vcpu as Vcpu
    from shardio.kvm import Vm as Vm
    from shardio.machine import Machine as Machine
    from shardio.memory import GuestMemory as GuestMemory
    from shardio.memory import MemoryRegion as MemoryRegion
    from shardio.resources import DeviceResources as DeviceResources
    from shardio.resources import MsiIrqType as MsiIrqType
    from shardio.resources import Resource as Resource
    from shardio.resources import ResourceAllocator as ResourceAllocator
    from shardio.resources import ResourceConstraint as ResourceConstraint

# What is imported on first use: public name -> module. A name here has its line for type checkers above.
_LAZY = {
    "Machine": "machine",
    "Dispatcher": "dispatcher",
    "DeviceHandle": "dispatcher",
    "DeviceStatistics": "dispatcher",
    "ExitInfo": "dispatcher",
    "MachineStatistics": "dispatcher",
    "ShardStatistics": "dispatcher",
    "Fabric": "fabric",
    "Outcome": "fabric",
    "Port": "fabric",
    "Kvm": "kvm",
    "Vm": "kvm",
    "Vcpu": "kvm",
    "GuestMemory": "memory",
    "MemoryRegion": "memory",
    "DeviceResources": "resources",
    "MsiIrqType": "resources",
    "Resource": "resources",
    "ResourceAllocator": "resources",
    "ResourceConstraint": "resources",
    "Trigger": "interrupt",
    "EventFdTrigger": "interrupt",
    "RecordingTrigger": "interrupt",
    "Shard": "dispatcher",
    "get_include": "headers",
}

__all__ = [
    "Bus", "BusAddress", "BusRange", "DeviceHost", "DeviceMmio", "DevicePio", "DeviceResources", "IoManager",
    "MmioAddress", "MmioBus", "MmioManager", "MmioRange", "MsiIrqType", "MutDeviceMmio", "MutDevicePio",
    "PioAddress", "PioBus", "PioManager", "PioRange", "Resource", "ResourceAllocator",
    "ResourceConstraint", "Space",
]
__all__ += errors.__all__


__getattr__, __dir__ = lazily(__name__, _LAZY)
