"""Interrupts as a device sees them: triggers, lines, vectors and groups, without a hypervisor.

A device holds a `Trigger` (or a richer `Interrupt`) and calls it; what stands behind it is an eventfd that
the kernel turns into an interrupt, or a recording for a unit test. This module's names are imported lazily
where they cost anything, because every shard imports it.
"""

from shardio.interrupt.doorbell import Doorbell
from shardio.interrupt.trigger import EventFdTrigger, RecordingTrigger, Trigger

__all__ = ["Doorbell", "EventFdTrigger", "RecordingTrigger", "Trigger"]
