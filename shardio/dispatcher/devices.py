"""The devices of a dispatcher that runs: their shards, and how they come and go while vCPUs run.

Addresses are claimed in whatever thread adds a device (`claims`). Everything else happens once there is a
fabric, and what changes the address map in force happens in the supervisor's thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from shardio.dispatcher.claims import Claims, resource_of
from shardio.dispatcher.device import DeviceHandle, Posted, Span
from shardio.dispatcher.kinds import check_numbers
from shardio.dispatcher.life import Life, State
from shardio.dispatcher.placement import Placement
from shardio.dispatcher.records import Records
from shardio.dispatcher.reload import reload
from shardio.dispatcher.requests import Requests
from shardio.errors import DeviceFailed, MachineError, ShardError, ShardioError
from shardio.fabric import Fabric
from shardio.memory import GuestMemory
from shardio.range import PioRange
from shardio.routing import quiesce
from shardio.shard.protocol import MoveDevice, RemoveDevice
from shardio.supervisor import DeviceRecord, ShardProcess, Supervisor
from shardio.supervisor.failover import Policy

if TYPE_CHECKING:
    from shardio.vcpu import Hypervisor

AT_ONCE = 64
"""Devices that the supervisor's thread takes care of before it looks at anything else."""
ACCESS_TIMEOUT_S = 30.0
"""How long `remove` and `pause` wait for an access in flight."""


class Devices(Claims):
    """All devices of one dispatcher. `handles` is in the order in which they were added."""

    def __init__(self, memory: GuestMemory | None, hypervisor: Hypervisor | None, life: Life) -> None:
        """`life`: its dispatcher's; once that is closing, nobody waits for a shard any more."""
        super().__init__(
            regions=() if memory is None else memory.regions,
            reserved=(lambda _: None) if hypervisor is None else hypervisor.reserved,
            interrupts=None if hypervisor is None else hypervisor.interrupts,
            line_hint="give the Dispatcher a hypervisor" if hypervisor is None else "use irqchip=True",
            call=self.call,
        )
        self._memory = memory
        self._hypervisor = hypervisor
        self._life = life
        self._policies: dict[int, Policy | None] = {}
        self._ring_reader: tuple[int, ...] = ()
        self.records = Records(memory, hypervisor)

    def open_holes(self) -> None:
        """Take the pages of devices among the adapters of a PC from guest RAM; before a vCPU runs.

        Raises `MachineError` for a device that would hide what was loaded there.
        """
        memory, hypervisor = self._memory, self._hypervisor
        if memory is None or hypervisor is None:
            return
        holes = []
        for span, route in self.routes.in_adapter_space():
            holes.append(range(int(span.base), int(span.last) + 1))
            for region in memory.regions:
                shared = range(max(holes[-1].start, region.guest_address), min(holes[-1].stop, region.end))
                if shared and any(memory.read(shared.start, len(shared))):
                    hint = "load that elsewhere, or place the device elsewhere"
                    raise MachineError(f"device {route.device} at {span} hides what was loaded there", hint)
        if holes:
            memory.open_holes(holes)
            hypervisor.ram_changed()
        self.routes.settle(memory.regions)

    # ---- once there is one ----

    def start(self, fabric: Fabric, supervisor: Supervisor, placement: Placement) -> None:
        """What `add` and the rest work with from now on."""
        self.routes.bind(fabric)
        self._fabric, self._supervisor, self._placement = fabric, supervisor, placement
        self._requests = Requests(supervisor, self._life.closing)

    def close(self) -> None:
        """Close what devices had here; the shards must have ended. Idempotent."""
        self.records.close()

    def policy(self, index: int, write: bool) -> Policy:
        """What becomes of a request of a range that its dead owner had taken."""
        chosen = self._policies.get(index)
        if chosen is not None:
            return chosen
        return Policy.FAIL if write else Policy.REPLAY

    def begin_with(self, handles: Sequence[DeviceHandle]) -> None:
        """`add`, before vCPUs run; where it fails nothing is undone: the dispatcher can only be closed."""
        self._make(handles)
        self._publish(handles)

    def add(self, handle: DeviceHandle) -> None:
        """Place a device, make it in its shards, then route to it.

        Raises `MachineError` with the text of what its constructor raised, `ShardError`; nothing of it is
        left.
        """
        try:
            self._make([handle])
        except BaseException:
            self._call(self._take_back, handle)
            raise
        try:
            self._publish([handle])
        except BaseException:
            self.remove(handle)
            raise

    def remove(self, handle: DeviceHandle) -> None:
        """Returns once no access is in flight and the shards have dropped the device. Raises
        `MachineError`; where it is `DeviceFailed`, the device is gone all the same.
        """
        self._call(self._unroute, handle)
        self._quiesce()
        indices = [route.index for route in handle.routes]
        failed: DeviceFailed | None = None
        for number in handle.shard_numbers:
            shard = self._supervisor.shards[number]
            try:
                self._requests.answer(shard, self._call(self._send_removal, shard, handle.name, indices))
            except ShardError:  # it died: no successor is told of the device
                pass
            except DeviceFailed as error:  # its detach() has run, and the shard has dropped it
                failed = failed or error
        for index in indices:
            self._fabric.clear_statistics(index)
        self._call(self._forget, handle)
        if failed is not None:
            raise failed

    def move(self, handle: DeviceHandle, pio: int | None, mmio: int | None) -> None:
        """Let the device answer at other bases. Nobody answers at either until the shards know.

        Raises `DeviceOverlap`, `RangeTaken`, and then nothing has changed; `MachineError`.
        """
        check_numbers(f"device {handle.name}", pio=pio, mmio=mmio)
        spans = [_moved(span, pio if isinstance(span, PioRange) else mmio) for span in handle.spans]
        if len(spans) != len(set(map(type, spans))):
            raise MachineError(
                f"device {handle.name} has several ranges of a kind", "remove it and add it anew"
            )
        if not handle.routes:
            self._rebase(handle, spans)
            return
        self._call(self._rebase, handle, spans)
        self._quiesce()
        self._call_each(self._route, [handle])
        record = self._record_of(handle)
        for number in handle.shard_numbers:
            shard = self._supervisor.shards[number]
            with contextlib.suppress(ShardError):  # it died: its successor makes the device at the new bases
                self._requests.answer(shard, self._call(self._send_move, shard, record))
        self._publish([handle])

    def reload(self, handles: Sequence[DeviceHandle]) -> None:
        """The shards that hold these; all that hold any, where there are none. See `reload.reload`."""
        shards = self._supervisor.shards
        meant = {number for handle in handles for number in handle.shard_numbers}
        for shard in list(shards):
            if shard.index in meant or (not handles and shard.records):
                reload(self._supervisor, shard, self._requests.answer, self._life.closing)

    def call(self, handle: DeviceHandle, *what: Any) -> Any:
        """`DeviceHandle.call`; `what`: see `Requests.call`."""
        self._life.require(State.STARTING, State.RUNNING)
        if not handle.routes:
            raise MachineError(
                f"device {handle.name} is in no running dispatcher", "start it, or add() it again"
            )
        return self._requests.call(self._supervisor.shards[handle.shard_numbers[0]], handle, *what)

    # ---- its parts ----

    def _make(self, handles: Sequence[DeviceHandle]) -> None:
        for handle in handles:
            self._place(handle)
        self._call_each(self._route, handles)
        self._call(self._tell_hypervisor)
        by_shard: dict[int, list[DeviceRecord]] = {}
        for handle in handles:
            record = self._record_of(handle)
            for number in handle.shard_numbers:
                by_shard.setdefault(number, []).append(record)
        for shard, future in self._call(self._send_records, by_shard):
            self._requests.answer(shard, future)

    def _publish(self, handles: Sequence[DeviceHandle]) -> None:
        self._call(self.routes.publish)
        self._call_each(self._coalesce, handles)
        self._call(self._supervisor.renew_spare)

    def _place(self, handle: DeviceHandle) -> None:
        wanted = handle.request.shard
        if wanted is not None and wanted not in self._placement.names:
            self._start_shard(wanted)
        if wanted is None and self._coalesces(handle) and self._ring_reader:
            wanted = self._placement.names[self._ring_reader[0]]
        handle.shard_numbers = self._placement.place(wanted, handle.request.replicas)
        if self._coalesces(handle):
            reader = self._ring_reader = self._ring_reader or handle.shard_numbers
            if handle.shard_numbers != reader or len(reader) != 1:
                self._placement.release(handle.shard_numbers)
                handle.shard_numbers = ()
                name = self._placement.names[reader[0]]
                raise MachineError(
                    f"device {handle.name} is coalesced, and KVM's one ring is read by shard {name!r}",
                    f"place it with shard={name!r}, or use posted=True",
                )
        handle.shards = tuple(self._placement.names[number] for number in handle.shard_numbers)

    def _start_shard(self, name: str) -> None:
        number = len(self._placement.names)
        if number == len(self._supervisor.shards):
            known = ", ".join(self._placement.names)
            raise MachineError(f"no room for one more shard, {name!r}", f"use one of {known}")
        shard = self._supervisor.shards[number]
        shard.name = name
        self._call(self._supervisor.start_shard, shard)
        self._placement.add_shard(name)

    def _coalesces(self, handle: DeviceHandle) -> bool:
        """Whether its writes go into the hypervisor's ring; without one they are posted."""
        hypervisor = self._hypervisor
        return handle.request.posted is Posted.COALESCED and hypervisor is not None and hypervisor.coalesces

    def _route(self, handle: DeviceHandle) -> None:
        request = handle.request
        posted = request.posted is not Posted.NO and not self._coalesces(handle)
        handle.routes = tuple(
            self.routes.assign(span, handle.shard_numbers, posted=posted) for span in handle.spans
        )
        for route in handle.routes:
            self._policies[route.index] = request.policy

    def _record_of(self, handle: DeviceHandle) -> DeviceRecord:
        shards = [self._supervisor.shards[number] for number in handle.shard_numbers]
        return self.records.make(handle, shards, coalesced=self._coalesces(handle))

    def _send_records(
        self, by_shard: Mapping[int, list[DeviceRecord]]
    ) -> list[tuple[ShardProcess, Future[Any]]]:
        shards = [self._supervisor.shards[number] for number in by_shard]
        return [(shard, shard.add(by_shard[shard.index])) for shard in shards]

    def _send_removal(self, shard: ShardProcess, name: str, indices: list[int]) -> Future[Any]:
        shard.records.pop(name, None)
        return shard.request(lambda serial: RemoveDevice(serial, name, indices))

    def _send_move(self, shard: ShardProcess, record: DeviceRecord) -> Future[Any]:
        shard.records[record.spec.name] = record
        return shard.request(lambda serial: MoveDevice(serial, record.spec.name, record.spec.ranges))

    def _coalesce(self, handle: DeviceHandle) -> None:
        if self._coalesces(handle):
            assert self._hypervisor is not None
            for span in handle.spans:
                self._hypervisor.coalesced().add(span)
                handle.zones = (*handle.zones, span)

    def _unroute(self, handle: DeviceHandle) -> None:
        # What is in the ring by now is drained before the shard drops the device.
        for zone in handle.zones:
            assert self._hypervisor is not None
            self._hypervisor.coalesced().remove(zone)
        handle.zones = ()
        for span in handle.spans:
            self.routes.assign(span, ())
        self.routes.publish()
        self._tell_hypervisor()

    def _tell_hypervisor(self) -> None:
        if self._hypervisor is not None:
            self._hypervisor.placed(self._answered)

    def _answered(self, span: Span) -> bool:
        """Whether a device of a shard is there."""
        route = self.routes.find(int(span.base), pio=isinstance(span, PioRange))
        return route is not None and bool(route.shards)

    def _rebase(self, handle: DeviceHandle, spans: Sequence[Span]) -> None:
        old = handle.spans
        moved: list[Span] = []
        try:
            for before, after in zip(old, spans, strict=True):
                moved.append(self.routes.move(before, int(after.base)))
        except ShardioError:
            for before, after in zip(old, moved, strict=False):
                self.routes.move(after, int(before.base))
            raise
        if self._allocator is not None:
            self._allocator.release(*map(resource_of, old))
            self._allocator.reserve(*map(resource_of, spans))
        handle.spans = handle.request.spans = tuple(moved)
        if handle.routes:
            self._unroute(handle)

    def _take_back(self, handle: DeviceHandle) -> None:
        """Undo a part of `add`: nothing was published."""
        for span in handle.spans if handle.routes else ():
            self.routes.assign(span, ())
        for number in handle.shard_numbers:
            shard = self._supervisor.shards[number]
            if handle.name in shard.records:
                self._send_removal(shard, handle.name, [route.index for route in handle.routes])
        self._forget(handle)

    def _forget(self, handle: DeviceHandle) -> None:
        self._placement.release(handle.shard_numbers)
        handle.shard_numbers = ()
        for route in handle.routes:
            self._policies.pop(route.index, None)
        handle.routes = ()
        self.records.forget(handle.name)

    def _quiesce(self) -> None:
        vcpus = self._supervisor.vcpus
        quiesce((vcpu.client for vcpu in vcpus if not vcpu.ended), ACCESS_TIMEOUT_S)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run in the supervisor's thread."""
        return self._supervisor.call(lambda: function(*arguments))

    def _call_each(self, function: Callable[[DeviceHandle], None], handles: Sequence[DeviceHandle]) -> None:
        """Run for each handle in the supervisor's thread, some at a time: handing one over takes as long as
        many, and many keep the supervisor from what else it watches.
        """
        for first in range(0, len(handles), AT_ONCE):
            self._call(lambda some: list(map(function, some)), handles[first : first + AT_ONCE])


def _moved(span: Span, base: int | None) -> Span:
    return span if base is None else type(span)(base, span.size)
