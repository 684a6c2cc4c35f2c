"""What sits behind a `PciBus`: the methods and attributes that the bus uses of a device there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from shardio.device import DeviceHost
from shardio.devices.pci_config import BAR0
from shardio.devices.pci_host import PciFunction

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardio.interrupt.doorbell import Doorbell


class PciEndpoint(Protocol):
    """A device behind the bridge, such as `VirtioPci`: one function, whose BAR 0 is a 32-bit memory one of
    `mmio_size` bytes, 0 for none. `state_type`, optional: the Struct that `snapshot` gives.
    `intx(**options)`, optional, of its class: its interrupt pin and the line (GSI) of that, None without.

    Optional, for one that has ports (`PiixIde`): `ports` of its class, ranges where it answers whatever the
    guest does, each by the `read` and `write` of `port(range)`, whose `keep`, if there is one, saves its
    state; `io_size` and `io_index` of its class, the bytes of its I/O BAR and which of the six it is; it lies
    at `io_bar` (None: nowhere) and answers by `io_read` and `io_write`.

    Optional, for one whose state outlives its shard beside what `snapshot` gives: `persistent` and
    `persistent_area` of its class (bytes), `keep_in(store, area, keep)` called first of all, `kept()` for the
    state beside that area, and `transient(offset)`, whether an access of its BAR there changes nothing of it.
    """

    mmio_size: int
    doorbells: Sequence[Doorbell]
    on_bar: Callable[[int | None], None] | None

    @property
    def function(self) -> PciFunction:
        """Its configuration space."""

    def attach(self, host: DeviceHost) -> None:
        """See `DeviceHost`."""

    def detach(self) -> None:
        """Called last."""

    def read(self, offset: int, size: int) -> int:
        """The guest reads its BAR."""

    def write(self, offset: int, size: int, value: int) -> None:
        """The guest writes its BAR."""

    def doorbell(self, index: int) -> None:
        """`doorbells[index]` was rung."""

    def snapshot(self) -> Any:
        """Its state."""

    def restore(self, state: Any) -> None:
        """Take its state back; before `attach` too."""


def bar0(endpoint: PciEndpoint) -> int:
    """Where its BAR 0 lies, whether it is decoded or not; 0 for nowhere."""
    return endpoint.function.config_read(BAR0, 4) & ~0xF


def typed(state: Any, endpoint: PciEndpoint) -> Any:
    """`state` as the endpoint's own Struct: one that was decoded without its type is a dict."""
    kind = getattr(endpoint, "state_type", None)
    return state if kind is None or isinstance(state, kind) else msgspec.convert(state, kind)
