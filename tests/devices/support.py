"""What device tests stand on, besides `shardio.testing`: a bare `IoManager`, and descriptors for all."""

from __future__ import annotations

from typing import Any

from shardio.io_manager import IoManager
from shardio.range import MmioRange, PioRange
from shardio.testing import FakeHost, ManualLoop

__all__ = ["ManualLoop", "Ports", "RecordingHost"]


class EveryDescriptor(dict[int, int]):
    """Hands every descriptor of this process over, under its own number."""

    def __contains__(self, number: object) -> bool:
        return True

    def __missing__(self, number: int) -> int:
        return number


class RecordingHost(FakeHost):
    """`pass_fds`: it hands over every descriptor."""

    def __init__(self, loop: Any = None, *, pass_fds: bool = False, **given: Any) -> None:
        super().__init__(loop, passed_fds=EveryDescriptor() if pass_fds else {}, **given)


class Ports:
    """A device on a bare `IoManager`, at port `base` and, where it answers memory, at `mmio`."""

    def __init__(self, device: Any, base: int, mmio: int | None = None) -> None:
        self.device = device
        self.base = base
        self.mmio = mmio
        self.manager = IoManager()
        if mmio is None:
            self.manager.register_pio(PioRange(base, device.pio_size), device)
        else:
            self.manager.register_mmio(MmioRange(mmio, device.mmio_size), device)

    def read(self, offset: int, size: int = 1) -> int:
        data = bytearray(size)
        if self.mmio is None:
            self.manager.pio_read(self.base + offset, data)
        else:
            self.manager.mmio_read(self.mmio + offset, data)
        return int.from_bytes(data, "little")

    def write(self, offset: int, value: int, size: int = 1) -> None:
        data = value.to_bytes(size, "little")
        if self.mmio is None:
            self.manager.pio_write(self.base + offset, data)
        else:
            self.manager.mmio_write(self.mmio + offset, data)
