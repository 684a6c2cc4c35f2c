"""Virtio devices (virtio 1.2): rng, console, block and net, over MMIO and PCI.

Read `queue` first: the split virtqueue, safe against any driver. `device` is what the device types have in
common, `transport` what the transports have, `mmio` and `pci` the two transports, `models` the devices that a
configuration names.
"""

from shardio.devices.virtio.block import Block
from shardio.devices.virtio.console import Console
from shardio.devices.virtio.errors import BackendError, QueueError, VirtioError
from shardio.devices.virtio.mmio import VirtioMmio
from shardio.devices.virtio.models import (
    VirtioMmioBlock,
    VirtioMmioConsole,
    VirtioMmioNet,
    VirtioMmioRng,
    VirtioPciBlock,
    VirtioPciConsole,
    VirtioPciNet,
    VirtioPciRng,
)
from shardio.devices.virtio.net import Net
from shardio.devices.virtio.pci import VirtioPci
from shardio.devices.virtio.rng import Rng

__all__ = [
    "BackendError",
    "Block",
    "Console",
    "Net",
    "QueueError",
    "Rng",
    "VirtioError",
    "VirtioMmio",
    "VirtioMmioBlock",
    "VirtioMmioConsole",
    "VirtioMmioNet",
    "VirtioMmioRng",
    "VirtioPci",
    "VirtioPciBlock",
    "VirtioPciConsole",
    "VirtioPciNet",
    "VirtioPciRng",
]
