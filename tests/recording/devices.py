"""Devices to be recorded, and the same with a bug planted."""

from __future__ import annotations

from typing import Any

from shardio import IoManager, MmioRange, MutDeviceMmio, MutDevicePio

BASE = 0xD000_0000


class Counter(MutDeviceMmio):
    """Adds what is written; reads give the sum, or fail at offset 8."""

    mmio_size = 0x100

    def __init__(self, start: int = 0) -> None:
        self.value = start

    def read(self, offset: int, size: int) -> int:
        if offset == 8:
            raise ValueError("offset 8")
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == 8:
            raise ValueError("offset 8")
        self.value += value


class Forgetful(Counter):
    """Forgets to add 13."""

    def write(self, offset: int, size: int, value: int) -> None:
        super().write(offset, size, 0 if value == 13 else value)


class Careless(Counter):
    """Fails at no offset."""

    def read(self, offset: int, size: int) -> int:
        return super().read(0, size)

    def write(self, offset: int, size: int, value: int) -> None:
        super().write(0, size, value)


class Fetcher(MutDevicePio):
    """Gives the byte of guest memory at the address that was written last."""

    pio_size = 4
    dma = True
    record_dma = True
    step = 0

    def __init__(self) -> None:
        self.value = 0

    def attach(self, host: Any) -> None:
        self.memory = host.memory
        self.value = self.memory.read(0x2000, 1)[0]

    def read(self, offset: int, size: int) -> int:
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.memory.write(0x3000, b"seen")
        self.value = self.memory.view(value + self.step, 1)[0]


class Astray(Fetcher):
    """Reads the byte behind it."""

    step = 1


class Lasting(Counter):
    """Its sum outlives its shard."""

    persistent = 8

    def attach(self, host: Any) -> None:
        self.memory = host.persistent
        self.value = int.from_bytes(self.memory.state or b"", "little")

    def write(self, offset: int, size: int, value: int) -> None:
        super().write(offset, size, value)
        self.memory.save(self.value.to_bytes(8, "little"))


class Board(IoManager):
    """A manager of devices."""

    def __init__(self) -> None:
        super().__init__()
        self.register_mmio(MmioRange(BASE, 8), Counter(1))
        self.register_mmio(MmioRange(BASE + 0x10, 8), Counter(2))


class Bells(Fetcher, Counter):
    """Fetches a byte when its doorbell is rung."""

    def attach(self, host: Any) -> None:
        self.memory = host.memory

    def doorbell(self, index: int) -> None:
        self.value += self.memory.read(0x1000, 1)[0]
