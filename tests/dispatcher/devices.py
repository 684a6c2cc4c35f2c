"""Devices of the dispatcher's tests, and vCPUs that are processes of the test's own."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from shardio import IoManager, MmioRange, MutDeviceMmio, MutDevicePio
from shardio.fabric import Port

BASE = 0xD000_0000
MMIO = 1


class Adder(MutDeviceMmio):
    """Adds what is written; reads give the sum."""

    mmio_size = 0x100

    def __init__(self, start: int = 0) -> None:
        self.value = start

    def read(self, offset: int, size: int) -> int:
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.value += value


class Slow(Adder):
    """Answers a read only once the file `gate` is there."""

    def __init__(self, gate: str) -> None:
        super().__init__()
        self.gate = gate

    def read(self, offset: int, size: int) -> int:
        while not os.path.exists(self.gate):
            time.sleep(0.001)
        self.value += 1
        return self.value


class Ports(MutDevicePio):
    """A port device with room for eight ports."""

    pio_size = 8

    def read(self, offset: int, size: int) -> int:
        return 0x40 + offset

    def write(self, offset: int, size: int, value: int) -> None:
        if value == 13:
            raise ValueError("thirteen")


class Deadly(Adder):
    """Ends its shard when it is read at offset 8."""

    def read(self, offset: int, size: int) -> int:
        if offset == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.value


class Board(IoManager):
    """A manager with two adders, to be added as one device."""

    def __init__(self) -> None:
        super().__init__()
        self.register_mmio(MmioRange(BASE, 8), Adder(1))
        self.register_mmio(MmioRange(BASE + 0x10, 8), Adder(2))


def add_numbers(port: Port, count: int) -> None:
    """A vCPU: writes 0 to `count` - 1."""
    for number in range(count):
        port.mmio_write(BASE, number.to_bytes(4, "little"))


def read_once(port: Port) -> None:
    """A vCPU that reads one register."""
    port.mmio_read(BASE, bytearray(4))


def keep_open(port: Port, done: Any) -> None:
    """A vCPU that has made an access and stays."""
    port.write(MMIO, BASE, 4, 0)
    done.wait(60)
