"""Interrupts as a device sees them: triggers, lines, vectors and groups, without a hypervisor.

A device holds a `Trigger` (or a richer `Interrupt`) and calls it; what stands behind it is an eventfd that
the kernel turns into an interrupt, or a recording for a unit test. Only the values and the device-facing
half are here; the VMM's half (`server`) and a shard's way to it (`proxy`, `messages`) are imported by name.
Each is imported on first use: a shard waits at its start for none that its devices do not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardio.lazy import lazily

if TYPE_CHECKING:
    from shardio.interrupt.backend import InterruptBackend as InterruptBackend
    from shardio.interrupt.backend import Irqfd as Irqfd
    from shardio.interrupt.coalesce import CoalescingTrigger as CoalescingTrigger
    from shardio.interrupt.config import InterruptMode as InterruptMode
    from shardio.interrupt.config import LegacyConfig as LegacyConfig
    from shardio.interrupt.config import MsiConfig as MsiConfig
    from shardio.interrupt.doorbell import BoundDoorbell as BoundDoorbell
    from shardio.interrupt.doorbell import Doorbell as Doorbell
    from shardio.interrupt.doorbell import DoorbellBackend as DoorbellBackend
    from shardio.interrupt.doorbell import DoorbellSet as DoorbellSet
    from shardio.interrupt.group import GroupVector as GroupVector
    from shardio.interrupt.group import InterruptGroup as InterruptGroup
    from shardio.interrupt.interrupt import EdgeInterrupt as EdgeInterrupt
    from shardio.interrupt.interrupt import Interrupt as Interrupt
    from shardio.interrupt.interrupt import LevelInterrupt as LevelInterrupt
    from shardio.interrupt.manager import InterruptManager as InterruptManager
    from shardio.interrupt.msix import MsixTable as MsixTable
    from shardio.interrupt.recording import RecordingBackend as RecordingBackend
    from shardio.interrupt.trigger import EventFdTrigger as EventFdTrigger
    from shardio.interrupt.trigger import RecordingTrigger as RecordingTrigger
    from shardio.interrupt.trigger import Trigger as Trigger

# Public name -> its module in this package. A name here has its line for type checkers above.
_LAZY = {
    "BoundDoorbell": "doorbell",
    "CoalescingTrigger": "coalesce",
    "Doorbell": "doorbell",
    "DoorbellBackend": "doorbell",
    "DoorbellSet": "doorbell",
    "EdgeInterrupt": "interrupt",
    "EventFdTrigger": "trigger",
    "GroupVector": "group",
    "Interrupt": "interrupt",
    "InterruptBackend": "backend",
    "InterruptGroup": "group",
    "InterruptManager": "manager",
    "InterruptMode": "config",
    "Irqfd": "backend",
    "LegacyConfig": "config",
    "LevelInterrupt": "interrupt",
    "MsiConfig": "config",
    "MsixTable": "msix",
    "RecordingBackend": "recording",
    "RecordingTrigger": "trigger",
    "Trigger": "trigger",
}

__all__ = [*_LAZY]


__getattr__, __dir__ = lazily(__name__, _LAZY)
