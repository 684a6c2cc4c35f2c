"""What the fabric's tests share: ranges routed to shards, an owner in a thread, a client that cannot hang."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

from shardio import MmioRange, MutDeviceMmio, MutDevicePio, PioRange
from shardio._core import ffi
from shardio.fabric import Fabric, Owner, Port, Turn
from shardio.routing import AddressMap, Route

PIO, MMIO = 0, 1
BASE = 0x1000
PORT = 0x80
PATIENCE_S = 20.0
"""A wait that takes longer is a hang: it is aborted, and the test sees ABORTED."""


class Log(MutDevicePio, MutDeviceMmio):
    """Remembers its accesses as (offset, size, value), None for a read; reads give the next of `values`."""

    def __init__(self, values: Iterable[int] = ()) -> None:
        self.seen: list[tuple[int, int, int | None]] = []
        self.values = list(values)

    def read(self, offset: int, size: int) -> int:
        self.seen.append((offset, size, None))
        return self.values.pop(0) if self.values else len(self.seen)

    def write(self, offset: int, size: int, value: int) -> None:
        self.seen.append((offset, size, value))


class ViewLog(Log):
    """The same through the memoryview handlers."""

    read = None  # type: ignore[assignment]
    write = None  # type: ignore[assignment]

    def mmio_read(self, base: int, offset: int, data: memoryview) -> None:
        data[:] = Log.read(self, offset, len(data)).to_bytes(len(data), "little")

    def mmio_write(self, base: int, offset: int, data: memoryview) -> None:
        Log.write(self, offset, len(data), int.from_bytes(data, "little"))


@cache
def header(vcpus: int, shards: int, ranges: int, posted_slots: int) -> tuple[bytes, int]:
    """A segment's header and size. Making one takes 15 ms: the tick is measured."""
    with Fabric.create(vcpus=vcpus, shards=shards, ranges=ranges, posted_slots=posted_slots) as fabric:
        return bytes(ffi.buffer(fabric.view.base, ffi.sizeof("struct sio_header"))), fabric.size


def fresh_fabric(*counts: int) -> Fabric:
    """A fabric as if just created."""
    start, size = header(*counts)
    fd = os.memfd_create("fabric")
    try:
        os.ftruncate(fd, size)
        os.pwrite(fd, start, 0)
        return Fabric.attach(fd)
    finally:
        os.close(fd)


class Bench:
    """A fabric with an address map; `add` routes a range and gives its index to an owner."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        shards = fabric.shards
        self.map = AddressMap(self.fabric)
        self.stack = ExitStack()
        self.stack.callback(self.fabric.close)
        self.doorbells = {shard: os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for shard in range(shards)}
        for fd in self.doorbells.values():
            self.stack.callback(os.close, fd)

    def owner(self, shard: int = 0, **arguments: object) -> Owner:
        owner = Owner(self.fabric, shard, self.doorbells[shard], **arguments)  # type: ignore[arg-type]
        self.stack.callback(owner.close)
        return owner

    def add(
        self,
        owner: Owner,
        device: object,
        span: PioRange | MmioRange | None = None,
        *,
        posted: bool = False,
        shards: Iterable[int] | None = None,
    ) -> Route:
        span = MmioRange(BASE, 0x100) if span is None else span
        route = self.map.add(span, (owner.shard,) if shards is None else shards, posted=posted)
        owner.set_handler(route.index, span, device, posted=posted)
        self.map.publish()
        return route

    def connect(
        self, device: object, span: PioRange | MmioRange | None = None, *, posted: bool = False
    ) -> tuple[Owner, Route, Port]:
        """An owner of `device` at `span`, the route there, and vCPU 0."""
        owner = self.owner()
        return owner, self.add(owner, device, span, posted=posted), self.client()

    def client(self, vcpu: int = 0, **arguments: object) -> Port:
        client = Port(self.fabric, vcpu, self.doorbells, **arguments)  # type: ignore[arg-type]
        watchdog = threading.Timer(PATIENCE_S, client.abort)
        watchdog.daemon = True
        watchdog.start()
        self.stack.callback(watchdog.join)
        self.stack.callback(watchdog.cancel)
        return client

    @contextmanager
    def serving(self, *owners: Owner) -> Iterator[None]:
        """Each owner in a thread of its own, as a shard would drive it."""
        stop = threading.Event()
        threads = [threading.Thread(target=self._serve, args=(owner, stop)) for owner in owners]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for owner in owners:
                os.eventfd_write(self.doorbells[owner.shard], 1)
            for thread in threads:
                thread.join()

    def _serve(self, owner: Owner, stop: threading.Event) -> None:
        while not stop.is_set():
            if owner.turn(500_000) is Turn.ASLEEP:
                select.select([self.doorbells[owner.shard]], [], [], 0.1)


@contextmanager
def bench(vcpus: int = 1, shards: int = 1, ranges: int = 8, posted_slots: int = 8) -> Iterator[Bench]:
    """A `Bench` over a fabric of its own, taken down at the end."""
    made = Bench(fresh_fabric(vcpus, shards, ranges, posted_slots))
    with made.stack:
        yield made
