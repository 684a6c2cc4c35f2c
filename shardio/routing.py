"""The address map's VMM side: which shards answer which range, published to every client at once.

`AddressMap` is two buses (an overlap is refused with both ranges named) over the map in the fabric. Range
indices are small numbers, reused: they name a range in the map, in requests, in counters and in a shard's
handler table.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from shardio._core import ffi, lib
from shardio.bus import MmioBus, PioBus
from shardio.errors import FabricError, MachineError
from shardio.fabric import Fabric, barrier
from shardio.range import MmioRange, PioRange

Span = PioRange | MmioRange


class Route(msgspec.Struct, frozen=True):
    """Who answers a range: `shards` by number, one unless the device is replicated."""

    index: int
    shards: tuple[int, ...]
    posted: bool = False
    quarantined: bool = False

    @property
    def flags(self) -> int:
        """SIO_RANGE_* of native/layout.h."""
        return (lib.SIO_RANGE_POSTED if self.posted else 0) | (
            lib.SIO_RANGE_QUARANTINED if self.quarantined else 0
        )


class AddressMap:
    """Routes by range. Nothing is visible to clients before `publish`."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._pio: PioBus[Route] = PioBus()
        self._mmio: MmioBus[Route] = MmioBus()
        self._free = list(range(fabric.ranges))
        self.generation = 0
        """How often the map has been published."""

    def add(self, span: Span, shards: Iterable[int], *, posted: bool = False) -> Route:
        """Route `span` to `shards`. Raises `DeviceOverlap`, or `FabricError` when every range index is in
        use.
        """
        if not self._free:
            raise FabricError(
                f"all {self._fabric.ranges} ranges are in use", "make the Machine with a larger max_ranges"
            )
        route = Route(self._free[0], tuple(shards), posted)
        self._register(span, route)
        heapq.heappop(self._free)
        return route

    def remove(self, span: Span) -> None:
        """Take `span` out. Its index stays reserved until `release`."""
        self._bus(span).deregister(int(span.base))

    def release(self, route: Route) -> None:
        """Let the index of a removed route be used again: no client and no shard may know it any more."""
        heapq.heappush(self._free, route.index)

    def move(self, span: Span, new_base: int) -> Span:
        """Move a range, refused without loss when the target is taken. Returns where it is now."""
        return self._bus(span).move(int(span.base), new_base)

    def find(self, address: int, *, pio: bool) -> Route | None:
        """Who answers at `address`, None where nobody does."""
        found = self._pio.device(address) if pio else self._mmio.device(address)
        return None if found is None else found[1]

    def quarantine(self, indices: Iterable[int]) -> None:
        """Nobody answers these ranges any more: reads give all-ones, writes are dropped."""
        wanted = set(indices)
        for span, route in list(self):
            if route.index in wanted:
                self._replace(span, msgspec.structs.replace(route, quarantined=True))

    def drop_shard(self, shard: int) -> None:
        """This shard answers nothing any more: its ranges are left to their replicas, or quarantined."""
        for span, route in list(self):
            if shard in route.shards:
                left = tuple(other for other in route.shards if other != shard)
                self._replace(
                    span, msgspec.structs.replace(route, shards=left or route.shards, quarantined=not left)
                )

    def __iter__(self) -> Iterator[tuple[Span, Route]]:
        yield from self._pio
        yield from self._mmio

    def publish(self) -> None:
        """Make the map visible to every client: what begins from now on is routed by it."""
        entries = ffi.new("struct sio_map_entry[]", max(1, len(self._pio) + len(self._mmio)))
        for position, (span, route) in enumerate(self):
            entry = entries[position]
            entry.base, entry.last = int(span.base), int(span.last)
            entry.shards = sum(1 << shard for shard in route.shards)
            entry.range, entry.flags = route.index, route.flags
        lib.sio_map_publish(self._fabric.view, entries, len(self._pio), len(self._mmio))
        self.generation += 1

    def _replace(self, span: Span, route: Route) -> None:
        self._bus(span).deregister(int(span.base))
        self._register(span, route)

    def _bus(self, span: Span) -> PioBus[Route] | MmioBus[Route]:
        return self._pio if isinstance(span, PioRange) else self._mmio

    def _register(self, span: Span, route: Route) -> None:
        if isinstance(span, PioRange):
            self._pio.register(span, route)
        else:
            self._mmio.register(span, route)


def quiesce(clients: Iterable[Any], timeout: float) -> None:
    """Wait until no client is inside an access that it began before this call (SP-QUIESCE).

    `clients`: `struct sio_client *`, of this process or mapped from another's. Raises `MachineError` after
    `timeout` seconds, `FabricError` where clients count on a membarrier and the kernel refuses it.
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
