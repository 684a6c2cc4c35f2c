"""A guest's side of a virtio-mmio device: a host for the device, and a driver that brings it up through
its registers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from shardio.device import HostMemory, HostTrigger
from shardio.devices.virtio import mmio
from shardio.devices.virtio.mmio import VirtioMmio
from shardio.devices.virtio.state import F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1
from shardio.interrupt import RecordingTrigger
from shardio.memory import GuestMemory
from tests.devices.support import EveryDescriptor
from tests.devices.virtio.driver import ModelDriver

G = TypeVar("G", bound="MmioGuest")
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 64, 128
VERSION_1, INDIRECT_DESC, EVENT_IDX = F_VERSION_1, F_INDIRECT_DESC, F_EVENT_IDX
QUEUE_SPACING = 0x40000
PATIENCE_S = 20.0
"""No wait of these tests is longer; none should come near, on however busy a machine."""


@dataclass
class Host:
    """What a shard gives a device."""

    memory: HostMemory | None
    loop: asyncio.AbstractEventLoop
    trigger: HostTrigger | None = field(default_factory=RecordingTrigger)
    name: str = "virtio-under-test"
    passed_fds: dict[int, int] = field(default_factory=EveryDescriptor)

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
                self.memory, size, 0x1000 + QUEUE_SPACING * index, event_idx=bool(features & EVENT_IDX)
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


@contextmanager
def attached(device: VirtioMmio, memory: HostMemory, **given: Any) -> Iterator[MmioGuest]:
    """The driver of a device whose loop nobody runs; `given`: what its `Host` has."""
    loop = asyncio.new_event_loop()
    try:
        device.attach(Host(memory, loop, **given))
        yield MmioGuest(device, memory)
    finally:
        device.detach()
        loop.close()


@asynccontextmanager
async def started(device: VirtioMmio, kind: type[G], *, ram: int = 0x800000, **how: Any) -> AsyncIterator[G]:
    """The driver (a `kind`) of a device that it has brought up, `how` as `MmioGuest.start` takes it, in the
    loop that runs.
    """
    with GuestMemory(ram) as memory:
        device.attach(Host(memory, asyncio.get_running_loop()))
        try:
            guest = kind(device, memory)
            guest.start(**how)
            yield guest
        finally:
            device.detach()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """A test in a loop of its own."""
    asyncio.run(test())


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until `condition` holds. Raises TimeoutError after `PATIENCE_S`."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0)
