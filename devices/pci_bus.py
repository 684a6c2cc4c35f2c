"""`PciBus`: a PCI host bridge with endpoints behind it, whose BARs the guest may move at run time.

Facts. The guest gives a BAR its address by a configuration write, and may change its mind. A machine's
address map belongs to the VMM, and changing it takes messages that an access cannot wait for.

Consequences. As on a board, the bridge claims a window of addresses once, and forwards: which endpoint
answers an address of the window is this device's own `MmioBus`, and a moved BAR is one atomic `move` in it,
done before the guest's write completes. Doorbells, which the kernel answers, move with their BAR. A BAR
outside the window, or on top of another, answers nothing until it is moved again.

>>> bus = PciBus(functions=[{"type": "shardio.devices.virtio:VirtioPciRng", "slot": 3}])
>>> bus.host.write(0, 4, 0x8000_1800)
>>> hex(bus.host.read(4, 4))
'0x10441af4'
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from shardio.address import MmioAddress, PioAddress
from shardio.bus import MmioBus
from shardio.device import DeviceHost, MutDeviceMmio, MutDevicePio
from shardio.devices.options import in_range
from shardio.devices.pci_host import PciFunction, PciHost, PciHostState, bdf
from shardio.errors import DeviceOptionError, DeviceOverlap, InvalidAddress, InvalidRange
from shardio.range import MmioRange
from shardio.rate import guest_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardio.interrupt.doorbell import Doorbell, DoorbellSet

log = logging.getLogger("shardio.devices.pci")

SLOTS = 32


class PciEndpoint(Protocol):
    """A device behind the bridge, such as `VirtioPci`: one function, one memory BAR of `mmio_size`
    bytes.
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


class PciBusState(msgspec.Struct):
    """The bridge's state, and that of each endpoint by its slot."""

    host: PciHostState
    endpoints: dict[int, Any]


class PciBus(MutDevicePio, MutDeviceMmio):
    """Configuration ports at 0xCF8 (`pio`), and the window (`mmio`) in which the guest places BARs.

    Both ranges are one device's: an endpoint's registers and its configuration change together.
    """

    dma = True
    compatible = "pci-host-cam-generic"
    pio_size = 8
    mmio_size = 16 << 20

    def __init__(self, functions: list[dict[str, Any]] | None = None) -> None:
        """`functions`: tables with `type` (dotted path of a `PciEndpoint`), `slot` (1 to 31, default the next
        free one) and the type's own options.

        Raises DeviceOptionError for a table without a type, a path that names nothing, or a slot that is
        taken.
        """
        self.host = PciHost()
        self.endpoints: dict[int, PciEndpoint] = {}
        self._bars: MmioBus[PciEndpoint] = MmioBus()
        self._at: dict[int, int] = {}
        self._doorbells: dict[int, DoorbellSet] = {}
        self._shard: DeviceHost | None = None
        for table in functions or []:
            options = dict(table)
            make = _endpoint_class(options.pop("type", None))
            self.add_endpoint(options.pop("slot", len(self.endpoints) + 1), make(**options))

    def add_endpoint(self, slot: int, endpoint: PciEndpoint) -> None:
        """Put `endpoint` into `slot` (1 to 31), before `attach`.

        Raises DeviceOptionError for a slot that is out of range or taken.
        """
        in_range(slot, 1, SLOTS - 1, device="PciBus", option="slot")
        if slot in self.endpoints:
            raise DeviceOptionError("PciBus", "slot", slot, "give each function its own slot")
        self.host.add_function(bdf(0, slot), endpoint.function)
        self.endpoints[slot] = endpoint
        endpoint.on_bar = lambda bar: self._place(slot, bar)

    # -- what the shard calls ---------------------------------------------------------------------------

    def attach(self, host: DeviceHost) -> None:
        """Attach every endpoint. Raises what they raise; then none is attached."""
        self._shard = host
        self.host.attach(host)
        attached: list[PciEndpoint] = []
        try:
            for endpoint in self.endpoints.values():
                endpoint.attach(host)
                attached.append(endpoint)
        except BaseException:
            for endpoint in reversed(attached):
                endpoint.detach()
            raise

    def detach(self) -> None:
        """Take the doorbells back, then detach every endpoint."""
        for slot in list(self._doorbells):
            self._doorbells.pop(slot).close()
        for endpoint in reversed(self.endpoints.values()):
            endpoint.detach()
        self.host.detach()
        self._shard = None

    def snapshot(self) -> PciBusState:
        """The state that `restore` takes."""
        return PciBusState(
            self.host.snapshot(), {slot: each.snapshot() for slot, each in self.endpoints.items()}
        )

    def restore(self, state: PciBusState) -> None:
        """Continue from `state`: BARs are where they were."""
        self.host.restore(state.host)
        for slot, saved in state.endpoints.items():
            self.endpoints[slot].restore(saved)

    # -- the guest --------------------------------------------------------------------------------------

    def pio_read(self, base: PioAddress, offset: int, data: memoryview) -> None:
        """The configuration ports: see `PciHost`."""
        data[:] = self.host.read(offset, len(data)).to_bytes(len(data), "little")

    def pio_write(self, base: PioAddress, offset: int, data: memoryview) -> None:
        """The configuration ports."""
        self.host.write(offset, len(data), int.from_bytes(data, "little"))

    def mmio_read(self, base: MmioAddress, offset: int, data: memoryview) -> None:
        """The BAR that lies there; all ones where none does."""
        found = self._bars.device(base + offset)
        if found is None or base + offset + len(data) - 1 > found[0].last:
            data[:] = b"\xff" * len(data)
            return
        bar, endpoint = found
        value = endpoint.read(base + offset - bar.base, len(data))
        data[:] = (value & ((1 << 8 * len(data)) - 1)).to_bytes(len(data), "little")

    def mmio_write(self, base: MmioAddress, offset: int, data: memoryview) -> None:
        """The BAR that lies there; dropped where none does."""
        found = self._bars.device(base + offset)
        if found is not None and base + offset + len(data) - 1 <= found[0].last:
            bar, endpoint = found
            endpoint.write(base + offset - bar.base, len(data), int.from_bytes(data, "little"))

    def bar(self, slot: int) -> int | None:
        """Where the endpoint's BAR answers now; None where it does not."""
        return self._at.get(slot)

    # -- moving -----------------------------------------------------------------------------------------

    def _place(self, slot: int, bar: int | None) -> None:
        """The guest moved the BAR, or switched its decoding (None: off)."""
        endpoint, old = self.endpoints[slot], self._at.pop(slot, None)
        try:
            if bar is None:
                self._forget(old)
            elif old is None:
                self._bars.register(MmioRange(bar, endpoint.mmio_size), endpoint)
            else:
                self._bars.move(old, bar)
        except (DeviceOverlap, InvalidRange, InvalidAddress) as error:
            guest_log.warning(log, "the BAR of slot %d answers nothing: %s", slot, str(error))
            self._forget(old)
            bar = None
        if bar is not None:
            self._at[slot] = bar
        self._ring_at(slot, bar)

    def _forget(self, old: int | None) -> None:
        if old is not None:
            self._bars.deregister(old)

    def _ring_at(self, slot: int, bar: int | None) -> None:
        doorbells = self._doorbells.get(slot)
        if bar is None:
            if doorbells is not None:
                self._doorbells.pop(slot).close()
        elif doorbells is not None:
            doorbells.move(bar)
        else:
            bind = getattr(getattr(self._shard, "interrupts", None), "doorbells", None)
            bound = bind(self.endpoints[slot], bar) if bind is not None else None
            if bound is not None:
                self._doorbells[slot] = bound


def _endpoint_class(path: object) -> Callable[..., PciEndpoint]:
    module, _, name = path.partition(":") if isinstance(path, str) else ("", "", "")
    try:
        found: Callable[..., PciEndpoint] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        cure = 'write "package.module:Class"'
        raise DeviceOptionError("PciBus", "type", path, cure) from None
    return found
