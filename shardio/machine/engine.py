"""The running half of a machine: fabric, address map, supervisor, vCPU workers and shards.

`Machine` says what there is; an engine is made when it starts, and lives until it is closed. Its methods may
be called from any thread, one at a time: what must happen in the supervisor's thread is handed to it.
"""

from __future__ import annotations

import contextlib
import pickle
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from shardio._core import lib
from shardio.errors import MachineError
from shardio.fabric import Fabric
from shardio.kvm.coalesced import KvmCoalesced
from shardio.kvm.doorbell import KvmDoorbells
from shardio.kvm.interrupt import KvmBackend
from shardio.kvm.vm import Vm
from shardio.machine.devices import DeviceHandle, IrqMode, Posted
from shardio.machine.placement import Placement, pins
from shardio.machine.statistics import MachineStatistics, ShardStatistics, device_statistics
from shardio.memory import GuestMemory
from shardio.range import PioRange
from shardio.routing import AddressMap, quiesce
from shardio.shard.protocol import Call, DeviceSpec, RangeSpec, RemoveDevice
from shardio.supervisor import DeviceRecord, ShardProcess, Supervisor
from shardio.supervisor.context import Event
from shardio.supervisor.recovery import Policy
from shardio.vcpu import VcpuState, VcpuWorker

AT_ONCE = 64
"""Devices that the supervisor's thread takes care of before it looks at anything else."""
REQUEST_TIMEOUT_S = 30.0
"""How long a shard may take to make or drop devices."""
ACCESS_TIMEOUT_S = 30.0
"""How long `remove` and `pause` wait for an access in flight."""
SPARE_SHARDS = 2
"""Shards that devices added while the guest runs may name anew."""


class Engine:
    """Starts its shards when it is made, its workers in `start`. Raises `FabricError`, `ShardError`."""

    def __init__(
        self,
        vm: Vm,
        memory: GuestMemory,
        placement: Placement,
        on_event: Event,
        *,
        ranges: int,
        pin: bool | None,
        hang_deadline: float,
        backend: KvmBackend | None,
        doorbells: KvmDoorbells,
        stdin: int | None,
        closing: Future[None],
    ) -> None:
        """`ranges`: room in the address map; `closing`: done once nobody is to wait for a shard any more; the
        rest is what `Machine` was given.
        """
        self._vm, self._memory, self._placement = vm, memory, placement
        self._closing = closing
        self._coalesced: KvmCoalesced | None = None
        self._ring_reader: tuple[int, ...] = ()
        self._policies: dict[int, Policy | None] = {}
        named, vcpus = len(placement.names), len(vm.vcpus)
        room = min(lib.SIO_MAX_SHARDS, named + SPARE_SHARDS)
        self.fabric = Fabric.create(vcpus=vcpus, shards=room, ranges=ranges)
        self._routes = AddressMap(self.fabric)
        with contextlib.ExitStack() as undo:
            undo.callback(self.fabric.close)
            self.supervisor = Supervisor(
                self.fabric,
                self._routes,
                self._policy,
                on_event,
                hang_deadline=hang_deadline,
                backend=backend,
                doorbells=doorbells,
                stdin=stdin,
            )
            undo.pop_all()
            undo.callback(self.close)
            undo.callback(self.stop_shards)
            worker_cpus, shard_cpus = pins(pin, vcpus, placement.cpus)
            # A worker rings doorbells of shards to come, too: each has one from the start.
            for number in range(room):
                name = placement.names[number] if number < named else f"spare{number}"
                cpu = shard_cpus[number] if number < named else None
                self.supervisor.shards.append(ShardProcess(self.fabric, number, name, cpu=cpu))
            bells = {shard.index: shard.doorbell for shard in self.supervisor.shards}
            for vcpu, cpu in zip(vm.vcpus, worker_cpus, strict=True):
                worker = VcpuWorker(
                    vcpu, self.fabric, bells, self.supervisor.state_event, cpu, vm_fd=vm.fd
                )
                self.supervisor.workers.append(worker)
            for shard in self.supervisor.shards[:named]:
                self._call(self.supervisor.start_shard, shard)
            undo.pop_all()

    # ---- devices ----

    def add(self, handles: Sequence[DeviceHandle]) -> None:
        """Place devices, make them in their shards, then route to them; all or none.

        Raises `MachineError` with the text of what a constructor raised, `ShardError`, `DeviceOverlap`.
        """
        try:
            self._make(handles)
        except BaseException:
            for handle in handles:
                self._call(self._take_back, handle)
            raise
        try:
            self._publish(handles)
        except BaseException:
            for handle in handles:
                self.remove(handle)
            raise

    def begin_with(self, handles: Sequence[DeviceHandle]) -> None:
        """`add`, before the vCPUs run; where it fails nothing is undone: the machine can only be closed."""
        self._make(handles)
        self._publish(handles)

    def remove(self, handle: DeviceHandle) -> None:
        """Returns once no access is in flight and the shards have dropped the device. Raises `MachineError`.
        """
        self._call(self._unroute, handle)
        quiesce((worker.client for worker in self.supervisor.workers if not worker.ended), ACCESS_TIMEOUT_S)
        message = [route.index for route in handle.routes]
        for number in handle.shard_numbers:
            self._answer(self._call(self._send_removal, self.supervisor.shards[number], handle.name, message))
        for route in handle.routes:
            self.fabric.clear_statistics(route.index)
        self._call(self._forget, handle)

    def call_device(
        self, handle: DeviceHandle, method: str, arguments: tuple[Any, ...], options: Mapping[str, Any]
    ) -> Any:
        """`DeviceHandle.call`."""
        if not handle.routes:
            raise MachineError(f"device {handle.name} is not in the running machine", "add() it again")
        packed = pickle.dumps((arguments, dict(options)))
        shard = self.supervisor.shards[handle.shard_numbers[0]]
        call = self._call(shard.request, lambda serial: Call(serial, handle.name, method, packed))
        return self._answer(call)

    def _make(self, handles: Sequence[DeviceHandle]) -> None:
        for handle in handles:
            self._place(handle)
        self._call_each(self._route, handles)
        by_shard: dict[int, list[DeviceRecord]] = {}
        for handle in handles:
            record = self._record(handle)
            for number in handle.shard_numbers:
                by_shard.setdefault(number, []).append(record)
        for future in self._call(self._send_records, by_shard):
            self._answer(future)

    def _publish(self, handles: Sequence[DeviceHandle]) -> None:
        self._call(self._routes.publish)
        self._call_each(self._coalesce, handles)
        self._call(self.supervisor.renew_spare)

    def _place(self, handle: DeviceHandle) -> None:
        wanted = handle.request.shard
        if wanted is not None and wanted not in self._placement.names:
            number = len(self._placement.names)
            if number == len(self.supervisor.shards):
                known = ", ".join(self._placement.names)
                raise MachineError(f"no room for one more shard, {wanted!r}", f"use one of {known}")
            shard = self.supervisor.shards[number]
            shard.name = wanted
            self._call(self.supervisor.start_shard, shard)
            self._placement.add_shard(wanted)
        if wanted is None and handle.request.posted is Posted.COALESCED and self._ring_reader:
            wanted = self._placement.names[self._ring_reader[0]]
        handle.shard_numbers = self._placement.place(wanted, handle.request.replicas)
        if handle.request.posted is Posted.COALESCED:
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

    def _route(self, handle: DeviceHandle) -> None:
        request = handle.request
        for span in handle.spans:
            posted = request.posted is Posted.RING
            route = self._routes.add(span, handle.shard_numbers, posted=posted)
            handle.routes = (*handle.routes, route)
            self._policies[route.index] = request.policy

    def _record(self, handle: DeviceHandle) -> DeviceRecord:
        request = handle.request
        fds: list[int] = []
        memory = ring = -1
        coalesced = request.posted is Posted.COALESCED
        page = 0
        if coalesced:
            ring, page = len(fds), self._ring().page
            fds.append(self._ring().fd)
        if request.dma:
            memory = len(fds)
            fds.append(self._memory.fd)
        ranges = [
            RangeSpec(
                route.index,
                "pio" if isinstance(span, PioRange) else "mmio",
                int(span.base),
                span.size,
                request.posted is Posted.RING,
                coalesced,
            )
            for span, route in zip(handle.spans, handle.routes, strict=True)
        ]
        size = self._memory.size if request.dma else 0
        irq = -1 if request.irq is None else request.irq
        level = request.irq_mode is IrqMode.LEVEL
        spec = DeviceSpec(
            request.name, request.packed, ranges, memory, size, irq, level, ring, page
        )
        return DeviceRecord(spec, fds)

    def _send_records(self, by_shard: Mapping[int, list[DeviceRecord]]) -> list[Future[Any]]:
        return [self.supervisor.shards[number].add(records) for number, records in by_shard.items()]

    def _send_removal(self, shard: ShardProcess, name: str, indices: list[int]) -> Future[Any]:
        shard.records.pop(name, None)
        return shard.request(lambda serial: RemoveDevice(serial, name, indices))

    def _ring(self) -> KvmCoalesced:
        if self._coalesced is None:
            self._coalesced = KvmCoalesced(self._vm)
        return self._coalesced

    def _coalesce(self, handle: DeviceHandle) -> None:
        if handle.request.posted is Posted.COALESCED:
            for span in handle.spans:
                self._ring().add(span)
                handle.zones = (*handle.zones, span)

    def _unroute(self, handle: DeviceHandle) -> None:
        # What is in the ring by now is drained before the shard drops the device.
        for zone in handle.zones:
            self._ring().remove(zone)
        handle.zones = ()
        for span, _ in zip(handle.spans, handle.routes, strict=False):
            self._routes.remove(span)
        self._routes.publish()

    def _take_back(self, handle: DeviceHandle) -> None:
        """Undo a part of `add`: nothing was published."""
        for span, _ in zip(handle.spans, handle.routes, strict=False):
            self._routes.remove(span)
        for number in handle.shard_numbers:
            shard = self.supervisor.shards[number]
            if handle.name in shard.records:
                self._send_removal(shard, handle.name, [route.index for route in handle.routes])
        self._forget(handle)

    def _forget(self, handle: DeviceHandle) -> None:
        self._placement.release(handle.shard_numbers)
        for route in handle.routes:
            self._routes.release(route)
            self._policies.pop(route.index, None)
        handle.routes = ()

    def _policy(self, index: int, write: bool) -> Policy:
        chosen = self._policies.get(index)
        if chosen is not None:
            return chosen
        return Policy.FAIL if write else Policy.REPLAY

    # ---- life ----

    def start(self) -> None:
        """Let the vCPUs run."""
        for worker in self.supervisor.workers:
            self._call(self.supervisor.start_worker, worker)
        self._call(self.supervisor.keep_spare)

    def command(self, command: int, state: VcpuState, timeout: float) -> None:
        """Command every vCPU and wait until it is in `state` (or has ended). Raises `MachineError`."""
        deadline = time.monotonic() + timeout
        for worker in self.supervisor.workers:
            worker.command(command)
        for worker in self.supervisor.workers:
            while worker.state is not state and not worker.ended:
                if time.monotonic() > deadline:
                    raise MachineError(
                        f"vCPU {worker.index} is {worker.state.name} and not {state.name} after {timeout} s",
                        "its access in flight does not end: see hang_deadline",
                    )
                lib.sio_vcpu_wait(worker.view, int(worker.state), 10_000_000)
                worker.kick_again()

    def stop_workers(self) -> None:
        """End the vCPUs."""
        self._call(self.supervisor.stop_workers)

    def stop_shards(self) -> None:
        """End the shards."""
        self._call(self.supervisor.stop_shards)

    def close(self) -> None:
        """Give everything back; workers and shards must have ended."""
        self.supervisor.close()
        if self._coalesced is not None:
            self._coalesced.close()
        for worker in self.supervisor.workers:
            worker.close()
        for shard in self.supervisor.shards:
            shard.close()
        self.fabric.close()

    def statistics(self, handles: Iterable[DeviceHandle], elapsed_ns: int) -> MachineStatistics:
        """Frozen values; `elapsed_ns`: how long the vCPUs have been running."""
        shards = tuple(
            ShardStatistics.read(shard.name, shard, self.fabric.shard_counters(shard.index))
            for shard in self.supervisor.shards
            if shard.spawns
        )
        devices = tuple(
            device_statistics(
                self.fabric,
                handle.name,
                zip(handle.shard_numbers, handle.shards, strict=True),
                (route.index for route in handle.routes),
            )
            for handle in handles
        )
        vcpus = tuple(worker.statistics(elapsed_ns) for worker in self.supervisor.workers)
        return MachineStatistics(vcpus, devices, shards)

    def _answer(self, future: Future[Any]) -> Any:
        """What a shard answers, unless the machine is closed meanwhile."""
        done, _ = wait((future, self._closing), REQUEST_TIMEOUT_S, FIRST_COMPLETED)
        if future in done:
            return future.result()
        if done:
            raise MachineError("the machine was closed before a shard had answered", "make a new Machine")
        raise MachineError(
            f"a shard has not answered for {REQUEST_TIMEOUT_S} s",
            "a device's constructor or attach() hangs: see its log",
        )

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run in the supervisor's thread."""
        return self.supervisor.call(lambda: function(*arguments))

    def _call_each(self, function: Callable[[DeviceHandle], None], handles: Sequence[DeviceHandle]) -> None:
        """Run for each handle in the supervisor's thread, some at a time: handing one over takes as long as
        many, and many keep the supervisor from what else it watches.
        """
        for first in range(0, len(handles), AT_ONCE):
            self._call(lambda some: list(map(function, some)), handles[first : first + AT_ONCE])
