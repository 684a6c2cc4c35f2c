"""A dispatcher's one address table: which device has which addresses, and which shards answer there.

Addresses are claimed when a device is added, routed to shards when it has been placed, and published to every
vCPU at once. `AddressMap` is two buses (an overlap is refused with both ranges named) over the map in the
fabric, which may come later than the first claims. Range indices are small numbers, reused: they name a range
in the map, in requests, in counters and in a shard's handler table.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from shardio._core import ffi, lib
from shardio.bus import MmioBus, PioBus
from shardio.errors import DeviceOverlap, FabricError, MachineError, RangeTaken, ShardioError
from shardio.fabric import Fabric, barrier
from shardio.memory import ADAPTER_SPACE, MemoryRegion
from shardio.range import MmioRange, PioRange
from shardio.reserved import Reserved

Span = PioRange | MmioRange
REMEDY = "make the Machine or the Dispatcher with a larger max_ranges"


class Route(msgspec.Struct, frozen=True):
    """A range's number, the device that has it, and who answers it: `shards` by number, one unless the device
    is replicated, none before it is placed.
    """

    index: int
    shards: tuple[int, ...] = ()
    posted: bool = False
    quarantined: bool = False
    device: str = ""

    @property
    def flags(self) -> int:
        """SIO_RANGE_* of native/layout.h."""
        return (lib.SIO_RANGE_POSTED if self.posted else 0) | (
            lib.SIO_RANGE_QUARANTINED if self.quarantined else 0
        )


class AddressMap:
    """Routes by range. Nothing is visible to vCPUs before `publish`.

    `regions`: guest RAM, where no device can be reached, but for the adapters' space of a PC before
    `settle`. `reserved`: tells what else answers in a device's
    place (`shardio.reserved`).
    """

    def __init__(
        self,
        fabric: Fabric | None = None,
        regions: Sequence[MemoryRegion] = (),
        reserved: Callable[[Span], Reserved | None] = lambda _: None,
    ) -> None:
        self._fabric = fabric
        self._regions = regions
        self._reserved = reserved
        self._settled = False
        self._pio: PioBus[int] = PioBus()
        self._mmio: MmioBus[int] = MmioBus()
        self._routes: dict[int, Route] = {}
        self._free: list[int] = []
        self._next = 0

    def bind(self, fabric: Fabric) -> None:
        """Publish into this fabric from now on. It has room for what is claimed already."""
        self._fabric = fabric

    def settle(self, regions: Sequence[MemoryRegion]) -> None:
        """Guest RAM is `regions` from now on: no device can take more of it (`ADAPTER_SPACE`)."""
        self._regions, self._settled = regions, True

    def in_adapter_space(self) -> list[tuple[MmioRange, Route]]:
        """The devices that take their pages from guest RAM."""
        return [
            (span, self._routes[index])
            for span, index in self._mmio
            if isinstance(span, MmioRange) and int(span.base) in ADAPTER_SPACE
        ]

    def __len__(self) -> int:
        return len(self._routes)

    def claim(self, device: str, spans: Iterable[Span]) -> list[Route]:
        """Reserve a device's addresses; all or none. Nobody answers there before `assign`.

        Raises `DeviceOverlap`, `RangeTaken` (RAM or the hypervisor would answer), or `FabricError` when every
        range index is in use.
        """
        claimed: list[tuple[Span, Route]] = []
        try:
            for span in spans:
                self._refuse_taken(device, span)
                claimed.append((span, self.add(span, (), device=device)))
        except ShardioError:
            for span, route in claimed:
                self.remove(span)
                self.release(route)
            raise
        return [route for _, route in claimed]

    def assign(self, span: Span, shards: Iterable[int], *, posted: bool = False) -> Route:
        """Let `shards` answer a claimed range, from the next `publish` on; none: nobody does any more."""
        return self._change(self._route(span), shards=tuple(shards), posted=posted)

    def add(self, span: Span, shards: Iterable[int], *, posted: bool = False, device: str = "") -> Route:
        """Route `span` to `shards`. Raises `DeviceOverlap`, or `FabricError` when every range index is in
        use.
        """
        limit = lib.SIO_MAX_RANGES if self._fabric is None else self._fabric.ranges
        if not self._free and self._next == limit:
            raise FabricError(f"all {limit} ranges are in use", REMEDY)
        index = self._free[0] if self._free else self._next
        try:
            if isinstance(span, PioRange):
                self._pio.register(span, index)
            else:
                self._mmio.register(span, index)
        except DeviceOverlap as overlap:
            holder = self._route(overlap.existing).device
            raise DeviceOverlap(span, overlap.existing, device, holder) from None
        if self._free:
            heapq.heappop(self._free)
        else:
            self._next += 1
        route = self._routes[index] = Route(index, tuple(shards), posted, device=device)
        return route

    def remove(self, span: Span) -> None:
        """Take `span` out. Its index stays reserved until `release`."""
        if (found := self._bus(span).deregister(int(span.base))) is not None:
            del self._routes[found[1]]

    def release(self, route: Route) -> None:
        """Let the index of a removed route be used again: no vCPU and no shard may know it any more."""
        heapq.heappush(self._free, route.index)

    def move(self, span: Span, new_base: int) -> Span:
        """Move a range, refused without loss when the target is taken. Returns where it is now."""
        device = self._route(span).device
        self._refuse_taken(device, type(span)(new_base, span.size))
        try:
            return self._bus(span).move(int(span.base), new_base)
        except DeviceOverlap as overlap:
            holder = self._route(overlap.existing).device
            raise DeviceOverlap(overlap.requested, overlap.existing, device, holder) from None

    def device(self, index: int) -> str:
        """The name of the device that has a range index, or what stands for it."""
        route = self._routes.get(index)
        return route.device if route is not None and route.device else f"range {index}"

    def find(self, address: int, *, pio: bool) -> Route | None:
        """Who answers at `address`, None where nobody does."""
        found = self._pio.device(address) if pio else self._mmio.device(address)
        return None if found is None else self._routes[found[1]]

    def quarantine(self, indices: Iterable[int]) -> None:
        """Nobody answers these ranges any more: reads give all-ones, writes are dropped."""
        for index in set(indices) & self._routes.keys():
            self._change(self._routes[index], quarantined=True)

    def drop_shard(self, shard: int) -> None:
        """This shard answers nothing any more: its ranges are left to their replicas, or quarantined."""
        for route in tuple(self._routes.values()):
            if shard in route.shards:
                left = tuple(other for other in route.shards if other != shard)
                self._change(route, shards=left or route.shards, quarantined=not left)

    def __iter__(self) -> Iterator[tuple[Span, Route]]:
        for bus in (self._pio, self._mmio):
            for span, index in bus:
                yield span, self._routes[index]

    def publish(self) -> None:
        """Make the map visible to every client: what begins from now on is routed by it."""
        if self._fabric is None:
            raise FabricError("the address map has no fabric", "bind it first")
        entries, counts = ffi.new("struct sio_map_entry[]", max(1, len(self))), [0, 0]
        for span, route in self:
            if not route.shards:
                continue
            entry = entries[sum(counts)]
            counts[isinstance(span, MmioRange)] += 1
            entry.base, entry.last = int(span.base), int(span.last)
            entry.shards = sum(1 << shard for shard in route.shards)
            entry.range, entry.flags = route.index, route.flags
        lib.sio_map_publish(self._fabric.view, entries, *counts)

    def refuse_memory(self, span: MmioRange) -> None:
        """Raises `MachineError` where memory at `span` would cover RAM, the hypervisor's own, or a device."""
        found = [
            f"guest RAM ({region})"
            for region in self._regions
            if span.base < region.end and region.guest_address <= span.last
        ]
        if (reserved := self._reserved(span)) is not None:
            found.append(reserved.who)
        if (claimed := self._mmio.overlapping(span)) is not None:
            found.append(f"device {self._routes[claimed[1]].device} ({claimed[0]})")
        if found:
            raise MachineError(f"memory at {span} would cover {found[0]}", "map it elsewhere")

    def _refuse_taken(self, device: str, span: Span) -> None:
        for region in self._regions if isinstance(span, MmioRange) else ():
            if span.base < region.end and region.guest_address <= span.last:
                inside = int(span.base) in ADAPTER_SPACE and int(span.last) in ADAPTER_SPACE
                if inside and not self._settled:
                    continue
                remedy = "place it between the RAM's end and 4 GiB, at 0xd0000000 say"
                if inside:
                    remedy = "add it before the start, when its pages are taken from RAM"
                raise RangeTaken(device, span, f"guest RAM ({region})", remedy)
        if (reserved := self._reserved(span)) is not None:
            raise RangeTaken(device, span, reserved.who, reserved.hint)

    def _route(self, span: Span) -> Route:
        found = self._bus(span).device(int(span.base))
        if found is None:
            raise FabricError(f"nothing is claimed at {span}", "claim it first")
        return self._routes[found[1]]

    def _change(self, route: Route, **values: Any) -> Route:
        changed = self._routes[route.index] = msgspec.structs.replace(route, **values)
        return changed

    def _bus(self, span: Span) -> PioBus[int] | MmioBus[int]:
        return self._pio if isinstance(span, PioRange) else self._mmio


def quiesce(clients: Iterable[Any], timeout: float) -> None:
    """Wait until no client is inside an access that it began before this call (SP-QUIESCE).

    `clients`: `struct sio_client *`, of whatever process (`shardio.fabric.port`). Raises `MachineError`
    after `timeout` seconds, `FabricError` where clients count on a membarrier and the kernel refuses it.
    """
    clients = list(clients)
    if any(client.waiter.membarrier for client in clients):  # the others fence for themselves
        barrier.fence()
    began = {client: lib.sio_client_pending(client) for client in clients}
    end = time.monotonic() + timeout
    pause = 20e-6
    for client, access in began.items():
        while access:
            now = lib.sio_client_pending(client)
            if now != access and (now == 0 or access >> 62 != lib.SIO_PENDING_NONE):
                break
            access = now  # of an access without a name yet: the one that it has got
            if time.monotonic() > end:
                raise MachineError(
                    f"an access is still in flight after {timeout} s",
                    "its shard hangs: see hang_deadline, or stop the machine",
                )
            time.sleep(pause)
            pause = min(pause * 2, 5e-3)
