"""A guest's side of a virtio-mmio device: a host for the device, and a driver that brings it up through
its registers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from shardio.device import HostMemory, HostTrigger
from shardio.devices.virtio import mmio
from shardio.devices.virtio.mmio import VirtioMmio
from shardio.devices.virtio.state import F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1
from shardio.interrupt import RecordingTrigger
from tests.devices.virtio.driver import ModelDriver

ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 64, 128
QUEUE_SPACING = 0x40000


@dataclass
class Host:
    """What a shard gives a device."""

    memory: HostMemory | None
    loop: asyncio.AbstractEventLoop
    trigger: HostTrigger | None = field(default_factory=RecordingTrigger)
    name: str = "virtio-under-test"

    def exit(self, status: int) -> None:
        raise AssertionError(f"the device asked for exit {status}")

    def reset(self) -> None:
        raise AssertionError("the device asked for a reset of the machine")


class MmioGuest:
    """The driver of one virtio-mmio device."""

    def __init__(self, device: VirtioMmio, memory: HostMemory) -> None:
        self.device, self.memory = device, memory
        self.queues: list[ModelDriver] = []

    def get(self, register: int) -> int:
        return self.device.read(register, 4)

    def set(self, register: int, value: int) -> None:
        self.device.write(register, 4, value)

    @property
    def status(self) -> int:
        return self.get(mmio.STATUS)

    def offered(self) -> int:
        words = []
        for page in (0, 1):
            self.set(mmio.DEVICE_FEATURES_SEL, page)
            words.append(self.get(mmio.DEVICE_FEATURES))
        return words[0] | words[1] << 32

    def accept(self, features: int) -> bool:
        """Reset, negotiate; whether the device agreed."""
        self.set(mmio.STATUS, 0)
        self.set(mmio.STATUS, ACKNOWLEDGE)
        self.set(mmio.STATUS, ACKNOWLEDGE | DRIVER)
        for page in (0, 1):
            self.set(mmio.DRIVER_FEATURES_SEL, page)
            self.set(mmio.DRIVER_FEATURES, features >> 32 * page & 0xFFFFFFFF)
        self.set(mmio.STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK)
        return bool(self.status & FEATURES_OK)

    def set_up_queue(self, index: int, driver: ModelDriver) -> None:
        self.set(mmio.QUEUE_SEL, index)
        self.set(mmio.QUEUE_SIZE, driver.size)
        for register, address in (
            (mmio.QUEUE_DESC, driver.desc),
            (mmio.QUEUE_DRIVER, driver.avail),
            (mmio.QUEUE_DEVICE, driver.used),
        ):
            self.set(register, address & 0xFFFFFFFF)
            self.set(register + 4, address >> 32)
        self.set(mmio.QUEUE_READY, 1)

    def start(self, features: int | None = None, *, size: int = 8, without: int = 0) -> None:
        """Bring the device up with all it offers (or `features`), less `without`, and all its queues."""
        features = (self.offered() if features is None else features) & ~without
        assert self.accept(features)
        self.queues = []
        for index in range(len(self.device.virtio.queue_sizes)):
            driver = ModelDriver(
                self.memory, size, 0x1000 + QUEUE_SPACING * index, event_idx=bool(features & F_EVENT_IDX)
            )
            self.queues.append(driver)
            self.set_up_queue(index, driver)
        self.set(mmio.STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)

    def notify(self, index: int) -> None:
        self.set(mmio.QUEUE_NOTIFY, index)

    async def collected(self, index: int, count: int) -> list[tuple[int, int, bytes]]:
        """Wait until `count` chains of queue `index` came back, and collect them."""
        done: list[tuple[int, int, bytes]] = []
        await until(lambda: len(done) >= count or bool(done.extend(self.queues[index].collect())))
        return done


async def until(condition: Callable[[], bool]) -> None:
    """Run the loop until `condition` holds; the test's own timeout is the limit."""
    while not condition():
        await asyncio.sleep(0.0002)


VERSION_1 = F_VERSION_1
INDIRECT_DESC = F_INDIRECT_DESC
EVENT_IDX = F_EVENT_IDX
