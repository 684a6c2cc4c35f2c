"""Which addresses the devices of a machine have, before and while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from shardio.bus import Bus, MmioBus, PioBus
from shardio.errors import MachineError, ShardioError
from shardio.memory import MemoryRegion
from shardio.range import MmioRange, PioRange
from shardio.routing import Span


class Addresses:
    """Both spaces of one machine. `regions`: its RAM, where no device can be reached."""

    def __init__(self, regions: Sequence[MemoryRegion]) -> None:
        self._regions = regions
        self._ports: PioBus[str] = PioBus()
        self._mmio: MmioBus[str] = MmioBus()

    def claim(self, name: str, spans: Iterable[Span]) -> None:
        """Reserve a device's addresses; all or none. Raises `DeviceOverlap`, `MachineError` for RAM."""
        claimed: list[Span] = []
        try:
            for span in spans:
                self._refuse_ram(name, span)
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

    def _refuse_ram(self, name: str, span: Span) -> None:
        for region in self._regions if isinstance(span, MmioRange) else ():
            if span.base < region.end and region.guest_address <= span.last:
                raise MachineError(
                    f"device {name} at {span} lies in guest RAM ({region}), which would answer instead",
                    "place it between the RAM's end and 4 GiB, at 0xd0000000 say",
                )
