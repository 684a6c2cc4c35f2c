"""Virtio devices (virtio 1.2): rng, console, block and net, over MMIO.

Read `queue` first: the split virtqueue, safe against any driver. `device` is what the device types have in
common, `transport` what the transports have, `mmio` the MMIO transport.
"""

from shardio.devices.virtio.errors import BackendError, QueueError, VirtioError
from shardio.devices.virtio.mmio import VirtioMmio
from shardio.devices.virtio.rng import Rng

__all__ = ["BackendError", "QueueError", "Rng", "VirtioError", "VirtioMmio"]
