"""Interrupts as a device sees them: triggers, lines, vectors and groups, without a hypervisor.

A device holds a `Trigger` (or a richer `Interrupt`) and calls it; what stands behind it is an eventfd that
the kernel turns into an interrupt, or a recording for a unit test. Only the values and the device-facing
half are here; the VMM's half (`server`) and a shard's way to it (`proxy`, `messages`) are imported by name.
"""

from shardio.interrupt.backend import InterruptBackend, Irqfd
from shardio.interrupt.coalesce import CoalescingTrigger
from shardio.interrupt.config import InterruptMode, LegacyConfig, MsiConfig
from shardio.interrupt.doorbell import BoundDoorbell, Doorbell, DoorbellBackend, DoorbellSet
from shardio.interrupt.group import GroupVector, InterruptGroup
from shardio.interrupt.interrupt import EdgeInterrupt, Interrupt, LevelInterrupt
from shardio.interrupt.manager import InterruptManager
from shardio.interrupt.msix import MsixTable
from shardio.interrupt.recording import RecordingBackend
from shardio.interrupt.trigger import EventFdTrigger, RecordingTrigger, Trigger

__all__ = [
    "BoundDoorbell",
    "CoalescingTrigger",
    "Doorbell",
    "DoorbellBackend",
    "DoorbellSet",
    "EdgeInterrupt",
    "EventFdTrigger",
    "GroupVector",
    "Interrupt",
    "InterruptBackend",
    "InterruptGroup",
    "InterruptManager",
    "InterruptMode",
    "Irqfd",
    "LegacyConfig",
    "LevelInterrupt",
    "MsiConfig",
    "MsixTable",
    "RecordingBackend",
    "RecordingTrigger",
    "Trigger",
]
