"""`IoWindow`: the ports of a PCI bus in which the guest places I/O BARs.

Few endpoints have one, and they are asked for little: who answers is looked for at each access.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from shardio.devices.pci_config import BAR0
from shardio.range import PioRange

IO_WINDOW: Final = PioRange(0xC000, 0x1000)
"""Where SeaBIOS places I/O BARs. A bus has it where an endpoint has such a BAR."""
_APART: Final = 0x100


class PortHandler(Protocol):
    """What answers a range of ports."""

    def read(self, offset: int, size: int) -> int:
        """`size` bytes at `offset`."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Take `size` bytes for `offset`."""


class IoWindow:
    """The I/O BARs of `endpoints` (see `PciEndpoint`); where none is, all ones."""

    def __init__(self, endpoints: Mapping[int, Any]) -> None:
        self._endpoints = endpoints

    def keep(self) -> None:
        """Save the states of those that have such a BAR; the bus sets this where there is memory for it."""

    def read(self, offset: int, size: int) -> int:
        """The BAR that lies there."""
        found = self._find(offset, size)
        value: int = (1 << 8 * size) - 1 if found is None else found[0].io_read(found[1], size)
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """The BAR that lies there; dropped where none does."""
        if (found := self._find(offset, size)) is not None:
            found[0].io_write(found[1], size, value)

    def assign(self) -> None:
        """Give each BAR that nobody placed an address in the window, as `PciBus` does with memory."""
        with_ports = [each for each in self._endpoints.values() if getattr(each, "io_size", 0)]
        for number, endpoint in enumerate(with_ports):
            at = BAR0 + 4 * endpoint.io_index
            if not endpoint.function.config_read(at, 4) & ~0x3:
                endpoint.function.config_write(at, 4, int(IO_WINDOW.base) + _APART * number)

    def _find(self, offset: int, size: int) -> tuple[Any, int] | None:
        """The endpoint, and how far into its BAR the access is."""
        port = int(IO_WINDOW.base) + offset
        for endpoint in self._endpoints.values():
            base = getattr(endpoint, "io_bar", None)
            if base is not None and base <= port and port + size <= base + endpoint.io_size:
                return endpoint, port - base
        return None
