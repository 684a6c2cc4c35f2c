"""virtio devices without doorbells: every notification is an ordinary access, to compare with."""

from __future__ import annotations

from shardio.devices.virtio import VirtioMmioBlock, VirtioMmioRng


class PlainRng(VirtioMmioRng):
    """`VirtioMmioRng`, notified by plain exits."""

    def __init__(self) -> None:
        super().__init__()
        self.doorbells = []


class PlainBlock(VirtioMmioBlock):
    """`VirtioMmioBlock`, notified by plain exits."""

    def __init__(self, path: str, queues: int = 1) -> None:
        super().__init__(path, queues=queues)
        self.doorbells = []
