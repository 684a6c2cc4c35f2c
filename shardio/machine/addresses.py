"""Which addresses the devices of a machine have, before and while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from shardio.bus import Bus, MmioBus, PioBus
from shardio.errors import RangeTaken, ShardioError
from shardio.memory import MemoryRegion
from shardio.range import MmioRange, PioRange
from shardio.reserved import reserved_by_kvm
from shardio.routing import Span


class Addresses:
    """Both spaces of one machine. `regions`: its RAM, where no device can be reached; `irqchip` as in
    `Machine`: what answers in the kernel.
    """

    def __init__(self, regions: Sequence[MemoryRegion], irqchip: bool | str = True) -> None:
        self._regions = regions
        self._irqchip = irqchip
        self._ports: PioBus[str] = PioBus()
        self._mmio: MmioBus[str] = MmioBus()

    def claim(self, name: str, spans: Iterable[Span]) -> None:
        """Reserve a device's addresses; all or none. Raises `DeviceOverlap`, `RangeTaken`."""
        claimed: list[Span] = []
        try:
            for span in spans:
                self._refuse_taken(name, span)
                self._bus(span).register(span, name)
                claimed.append(span)
        except ShardioError:
            self.give_back(claimed)
            raise

    def give_back(self, spans: Iterable[Span]) -> None:
        """What was claimed is free again."""
        for span in spans:
            self._bus(span).deregister(int(span.base))

    def _bus(self, span: Span) -> Bus[Any, str]:
        return self._ports if isinstance(span, PioRange) else self._mmio

    def _refuse_taken(self, name: str, span: Span) -> None:
        for region in self._regions if isinstance(span, MmioRange) else ():
            if span.base < region.end and region.guest_address <= span.last:
                cure = "place it between the RAM's end and 4 GiB, at 0xd0000000 say"
                raise RangeTaken(name, span, f"guest RAM ({region})", cure)
        if (reserved := reserved_by_kvm(span, self._irqchip)) is not None:
            raise RangeTaken(name, span, reserved.who, reserved.cure)
