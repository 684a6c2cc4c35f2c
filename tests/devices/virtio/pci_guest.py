"""A guest's side of a virtio device on PCI: a host for the device, and a driver that brings it up through its
configuration space and its BAR.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shardio.device import HostMemory
from shardio.devices.pci_config import BAR0, COMMAND, COMMAND_MASTER, COMMAND_MEMORY
from shardio.devices.virtio import VirtioPciRng
from shardio.devices.virtio.pci_common import (
    CONFIG_VECTOR,
    DRIVER_FEATURE,
    DRIVER_FEATURE_SELECT,
    QUEUE_DESC,
    QUEUE_DEVICE,
    QUEUE_DRIVER,
    QUEUE_ENABLE,
    QUEUE_SELECT,
    QUEUE_SIZE,
    QUEUE_VECTOR,
    STATUS,
)
from shardio.interrupt import InterruptManager, MsiConfig, RecordingBackend
from shardio.interrupt.msix import CONTROL_ENABLE
from tests.devices.virtio.driver import ModelDriver
from tests.devices.virtio.guest import ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, VERSION_1, Host

BASE = 0xC000_0000
COMMON, NOTIFY, ISR, DEVICE_CONFIG, WINDOW = 1, 2, 3, 4, 5
NO_VECTOR = 0xFFFF
LINE = 11


@dataclass
class PciTestHost(Host):
    """A host that has interrupts to ask for."""

    interrupts: InterruptManager | None = None


@dataclass(frozen=True)
class Capability:
    """One entry of the capability list."""

    at: int
    kind: int
    offset: int
    length: int


class PciGuest:
    """A driver that knows only configuration space, the capabilities, and the BAR they point to."""

    def __init__(self, device: VirtioPciRng, memory: HostMemory) -> None:
        self.device, self.memory = device, memory
        self.config = device.function
        self.virtio: dict[int, Capability] = {}
        self.msix = 0
        at = self.config.config_read(0x34, 1)
        while at:
            if self.config.config_read(at, 1) == 0x11:
                self.msix = at
            else:
                kind = self.config.config_read(at + 3, 1)
                offset, length = self.config.config_read(at + 8, 4), self.config.config_read(at + 12, 4)
                self.virtio[kind] = Capability(at, kind, offset, length)
            at = self.config.config_read(at + 1, 1)

    def enable_memory(self) -> None:
        self.config.config_write(BAR0, 4, BASE)
        self.config.config_write(COMMAND, 2, COMMAND_MEMORY | COMMAND_MASTER)

    def get(self, field: int, size: int) -> int:
        return self.device.read(self.virtio[COMMON].offset + field, size)

    def set(self, field: int, size: int, value: int) -> None:
        self.device.write(self.virtio[COMMON].offset + field, size, value)

    def start(self, vector: int = NO_VECTOR, config_vector: int = NO_VECTOR, size: int = 8) -> ModelDriver:
        self.set(STATUS, 1, 0)
        self.set(STATUS, 1, ACKNOWLEDGE | DRIVER)
        self.set(DRIVER_FEATURE_SELECT, 4, 1)
        self.set(DRIVER_FEATURE, 4, VERSION_1 >> 32)
        self.set(STATUS, 1, ACKNOWLEDGE | DRIVER | FEATURES_OK)
        self.set(CONFIG_VECTOR, 2, config_vector)
        driver = ModelDriver(self.memory, size)
        self.set(QUEUE_SELECT, 2, 0)
        self.set(QUEUE_SIZE, 2, size)
        self.set(QUEUE_VECTOR, 2, vector)
        self.set(QUEUE_DESC, 8, driver.desc)
        self.set(QUEUE_DRIVER, 4, driver.avail)
        self.set(QUEUE_DRIVER + 4, 4, 0)
        self.set(QUEUE_DEVICE, 8, driver.used)
        self.set(QUEUE_ENABLE, 2, 1)
        self.set(STATUS, 1, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
        return driver

    def notify(self, queue: int = 0) -> None:
        multiplier = self.config.config_read(self.virtio[NOTIFY].at + 16, 4)
        self.device.write(self.virtio[NOTIFY].offset + multiplier * queue, 2, queue)

    def enable_msix(self, messages: list[MsiConfig], control: int = CONTROL_ENABLE) -> None:
        table = self.config.config_read(self.msix + 4, 4)
        for index, message in enumerate(messages):
            at = table + 16 * index
            self.device.write(at, 4, message.address & 0xFFFFFFFF)
            self.device.write(at + 4, 4, message.address >> 32)
            self.device.write(at + 8, 4, message.data)
            self.device.write(at + 12, 4, 0)
        self.config.config_write(self.msix + 2, 2, control)

    def isr(self) -> int:
        return self.device.read(self.virtio[ISR].offset, 1)


@contextmanager
def plugged_in(device: VirtioPciRng, memory: HostMemory, backend: RecordingBackend) -> Iterator[PciGuest]:
    """The driver of a device in a loop that nobody runs."""
    loop = asyncio.new_event_loop()
    with InterruptManager(backend) as interrupts:
        try:
            device.attach(PciTestHost(memory, loop, None, interrupts=interrupts))
            yield PciGuest(device, memory)
        finally:
            device.detach()
            loop.close()
