"""`PciBus`: a PCI host bridge with endpoints behind it, whose BARs the guest may move at run time.

Facts. The guest gives a BAR its address by a configuration write, and may change its mind. A machine's
address map belongs to the VMM, and changing it takes messages that an access cannot wait for.

Consequences. As on a board, the bridge claims a window of addresses once, and forwards: which endpoint
answers an address of the window is this device's own `MmioBus`, and a moved BAR is one atomic `move` in it,
done before the guest's write completes. Doorbells, which the kernel answers, move with their BAR. A BAR
outside the window, or on top of another, answers nothing until nothing is in its way (`pci_window`).

>>> bus = PciBus(functions=[{"type": "shardio.devices.virtio:VirtioPciRng", "slot": 3}])
>>> bus.host.write(0, 4, 0x8000_1800)
>>> hex(bus.host.read(4, 4))
'0x10441af4'
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from shardio.address import MmioAddress, PioAddress
from shardio.device import DeviceHost, MutDeviceMmio, MutDevicePio, declared_capabilities
from shardio.devices.options import in_range
from shardio.devices.pci_config import BAR0
from shardio.devices.pci_endpoint import PciEndpoint, bar0, typed
from shardio.devices.pci_functions import NO_ENDPOINT, described_functions
from shardio.devices.pci_host import PciHost, PciHostState, bdf
from shardio.devices.pci_memory import PciMemory, area_bytes, state_bytes
from shardio.devices.pci_ports import IO_WINDOW, IoWindow, PortHandler
from shardio.devices.pci_window import BarWindow
from shardio.errors import DeviceOptionError
from shardio.range import MmioRange, PioRange

if TYPE_CHECKING:
    from shardio.interrupt.doorbell import DoorbellSet

log = logging.getLogger("shardio.devices.pci")

SLOTS = 32
_NOTHING: list[int] = []
"""An access that has changed no state."""


class PciBusState(msgspec.Struct):
    """The bridge's state, and that of each endpoint by its slot, in the order in which they are to be
    restored.
    """

    host: PciHostState
    endpoints: dict[int, Any]


class _ConfigPorts:
    """The configuration ports of a bus, so that a shard calls the bridge without a detour."""

    unguarded, reads_change = PciHost.unguarded, False

    def __init__(self, bus: PciBus) -> None:
        self.read, self.write, self.keep = bus.host.read, bus.write_config, bus.keep


class PciBus(MutDevicePio, MutDeviceMmio):
    """Configuration ports at 0xCF8 (`pio`), and the window (`mmio`) in which the guest places BARs.

    Both ranges are one device's: an endpoint's registers and its configuration change together.
    """

    dma = True
    compatible = "pci-host-cam-generic"
    pio_size = 8
    mmio_size = 16 << 20

    @staticmethod
    def describe(
        functions: list[dict[str, Any]] | None = None, **_: object
    ) -> dict[str, list[tuple[int, int, int]]]:
        """What the options say to tables: slot, pin and line (GSI) of each function that has a pin."""
        pins = []
        for slot, make, options in described_functions(functions):
            intx = getattr(make, "intx", None)
            wired = intx(**options) if intx is not None else None
            if wired is not None:
                pins.append((slot, *wired))
        return {"pins": pins}

    @staticmethod
    def further_ranges(functions: list[dict[str, Any]] | None = None, **_: object) -> list[PioRange]:
        """The ports of endpoints: theirs whatever the guest does, and the window for I/O BARs."""
        makers = [make for _, make, _ in described_functions(functions)]
        ports = [span for make in makers for span in getattr(make, "ports", ())]
        return [*ports, IO_WINDOW] if any(getattr(make, "io_size", 0) for make in makers) else ports

    @staticmethod
    def capabilities(functions: list[dict[str, Any]] | None = None) -> set[str]:
        """Those of all functions."""
        described = described_functions(functions)
        return {name for _, make, own in described for name in declared_capabilities(make, own)}

    @staticmethod
    def persistent(functions: list[dict[str, Any]] | None = None) -> int:
        """What the states of all take at most."""
        return state_bytes((make, own) for _, make, own in described_functions(functions))

    @staticmethod
    def persistent_area(functions: list[dict[str, Any]] | None = None) -> int:
        """What they keep beside it."""
        return area_bytes((make, own) for _, make, own in described_functions(functions))

    def __init__(self, functions: list[dict[str, Any]] | None = None) -> None:
        """`functions`: tables with `type` (dotted path of a `PciEndpoint`), `slot` (1 to 31, default the next
        free one) and the type's own options.

        Raises DeviceOptionError for a table without a type, a path that names nothing, or a slot that is
        taken.
        """
        self.host = PciHost()
        self.endpoints: dict[int, PciEndpoint] = {}
        self.window: BarWindow[PciEndpoint] = BarWindow()
        self._doorbells: dict[int, DoorbellSet] = {}
        self._io = IoWindow(self.endpoints)
        self._config = _ConfigPorts(self)
        self._ports: dict[int, PortHandler] = {int(IO_WINDOW.base): self._io}
        self._shard: DeviceHost | None = None
        self._memory: PciMemory | None = None
        self._touched: list[int] | None = None
        """The endpoints that the access in hand may have changed; None outside of one."""
        try:
            for slot, make, options in described_functions(functions):
                self.add_endpoint(slot, make(**options))
        except BaseException:
            for endpoint in self.endpoints.values():
                endpoint.detach()
            raise

    def add_endpoint(self, slot: int, endpoint: PciEndpoint) -> None:
        """Put `endpoint` into `slot` (1 to 31), before `attach`.

        Raises DeviceOptionError for a slot that is out of range or taken; the endpoint is detached then.
        """
        if not hasattr(endpoint, "function"):
            raise DeviceOptionError("PciBus", "type", type(endpoint).__name__, NO_ENDPOINT)
        try:
            in_range(slot, 1, SLOTS - 1, device="PciBus", option="slot")
            if slot in self.endpoints:
                raise DeviceOptionError("PciBus", "slot", slot, "give each function its own slot")
        except BaseException:
            endpoint.detach()
            raise
        self.host.add_function(bdf(0, slot), endpoint.function)
        self.endpoints[slot] = endpoint
        for span in getattr(endpoint, "ports", ()):
            self._ports[int(span.base)] = endpoint.port(span)  # type: ignore[attr-defined]
        endpoint.on_bar = lambda bar: self._place(slot, bar)

    # -- what the shard calls ---------------------------------------------------------------------------

    def attach(self, host: DeviceHost) -> None:
        """Attach every endpoint. Raises what they raise; then none is attached. The range of memory that
        `host.ranges` names is the window.
        """
        self._shard = host
        spans = [each for each in getattr(host, "ranges", ()) if isinstance(each, MmioRange)]
        self.window.span = spans[0] if spans else None
        self.host.attach(host)
        self._remember(host)
        attached: list[PciEndpoint] = []
        try:
            for endpoint in self.endpoints.values():
                endpoint.attach(host)
                attached.append(endpoint)
        except BaseException:
            for endpoint in reversed(attached):
                endpoint.detach()
            raise
        self._assign()

    def detach(self) -> None:
        """Take the doorbells back, then detach every endpoint."""
        for slot in list(self._doorbells):
            self._doorbells.pop(slot).close()
        for endpoint in reversed(self.endpoints.values()):
            endpoint.detach()
        self.host.detach()
        self._shard = self._memory = None

    def _remember(self, host: DeviceHost) -> None:
        if getattr(host, "persistent", None) is None:
            return
        memory = self._memory = PciMemory(host.persistent, self.host, self.endpoints, self.window.order)
        self._io.keep = memory.keeper(  # type: ignore[method-assign]
            *(slot for slot, each in self.endpoints.items() if getattr(each, "io_size", 0))
        )

    def keep(self) -> None:
        """Save what the access in hand may have changed, outside of one everything."""
        touched, self._touched = self._touched, None
        if self._memory is not None and touched is not _NOTHING:
            self._memory.keep(self.endpoints if touched is None else touched)

    def snapshot(self) -> PciBusState:
        """The state that `restore` takes."""
        order = dict.fromkeys([*self.window.order(), *self.endpoints])
        return PciBusState(self.host.snapshot(), {slot: self.endpoints[slot].snapshot() for slot in order})

    def restore(self, state: PciBusState) -> None:
        """Continue from `state`: BARs are where they were."""
        self.host.restore(state.host)
        for slot, saved in state.endpoints.items():
            self.endpoints[slot].restore(typed(saved, self.endpoints[slot]))

    def call_endpoint(self, slot: int, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the endpoint in `slot`, as in `DeviceHandle.call("call_endpoint", 3, "resize")`.

        Raises DeviceOptionError where there is none, and what the method raises.
        """
        found = getattr(self.endpoints.get(slot), method, None) if method[:1] != "_" else None
        if slot not in self.endpoints:
            raise DeviceOptionError("PciBus", "slot", slot, f"its slots are {sorted(self.endpoints)}")
        if not callable(found):
            hint = f"{type(self.endpoints[slot]).__name__} has no such method"
            raise DeviceOptionError("PciBus", "method", method, hint)
        return found(*arguments, **options)

    def terminal_resized(self, columns: int, rows: int) -> None:
        """Tell each endpoint that wants to know."""
        for endpoint in self.endpoints.values():
            if (resized := getattr(endpoint, "terminal_resized", None)) is not None:
                resized(columns, rows)

    # -- the guest --------------------------------------------------------------------------------------

    def handlers_for(self, span: PioRange | MmioRange) -> object:
        """Who answers the range, so that a shard calls an endpoint's ports without a detour."""
        return self._ports.get(int(span.base), self._config) if isinstance(span, PioRange) else self

    def pio_read(self, base: PioAddress, offset: int, data: memoryview) -> None:
        """An endpoint's ports where the range is theirs, else the configuration ports: see `PciHost`."""
        value = self._ports.get(base, self._config).read(offset, len(data))
        data[:] = value.to_bytes(len(data), "little")

    def pio_write(self, base: PioAddress, offset: int, data: memoryview) -> None:
        """Likewise."""
        self._ports.get(base, self._config).write(offset, len(data), int.from_bytes(data, "little"))

    def write_config(self, offset: int, size: int, value: int) -> None:
        """A write of the configuration ports."""
        self._touched = [self.host.slot] if self.host.slot in self.endpoints else []
        self.host.write(offset, size, value)

    def mmio_read(self, base: MmioAddress, offset: int, data: memoryview) -> None:
        """The BAR that lies there; all ones where none does."""
        found = self._find(base + offset, len(data))
        if found is None:
            data[:] = b"\xff" * len(data)
            return
        distance, endpoint = found
        value = endpoint.read(distance, len(data))
        data[:] = (value & ((1 << 8 * len(data)) - 1)).to_bytes(len(data), "little")

    def mmio_write(self, base: MmioAddress, offset: int, data: memoryview) -> None:
        """The BAR that lies there; dropped where none does."""
        found = self._find(base + offset, len(data))
        if found is not None:
            distance, endpoint = found
            endpoint.write(distance, len(data), int.from_bytes(data, "little"))

    def _find(self, address: int, size: int) -> tuple[int, PciEndpoint] | None:
        self._touched = _NOTHING
        found = self.window.find(address, size)
        if found is not None and self._memory is not None:
            distance, endpoint = found
            transient = getattr(endpoint, "transient", None)
            if transient is None or not transient(distance):
                self._touched = [slot for slot, each in self.endpoints.items() if each is endpoint]
        return found

    def bar(self, slot: int) -> int | None:
        """Where the endpoint's BAR answers now; None where it does not."""
        return self.window.at(slot)

    # -- moving -----------------------------------------------------------------------------------------

    def _place(self, slot: int, bar: int | None) -> None:
        """The guest moved the BAR, or switched its decoding (None: off)."""
        endpoint = self.endpoints[slot]
        for moved in self.window.place(slot, endpoint, bar, endpoint.mmio_size):
            self._ring_at(moved, self.window.at(moved))

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

    def _assign(self) -> None:
        """Give each BAR that nobody placed an address in the window, its decoding still off.

        A kernel that neither firmware nor ACPI told of the window takes the addresses that it finds, and
        would otherwise make up its own. Firmware overwrites them.
        """
        self._io.assign()
        sizes = {slot: each.mmio_size for slot, each in self.endpoints.items() if each.mmio_size}
        held = {slot: bar0(self.endpoints[slot]) for slot in sizes}
        taken = [MmioRange(base, sizes[slot]) for slot, base in held.items() if base]
        window = self.window.span
        for slot in sorted((slot for slot, base in held.items() if not base), key=lambda slot: -sizes[slot]):
            base = self.window.free(sizes[slot], taken)
            if base is None:
                if window is not None:
                    log.warning("the window %s has no room for slot %d; make it larger", window, slot)
                continue
            taken.append(MmioRange(base, sizes[slot]))
            self.endpoints[slot].function.config_write(BAR0, 4, base)
