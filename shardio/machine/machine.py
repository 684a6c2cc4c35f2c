"""`Machine`: a virtual machine whose device accesses other processes answer.

It holds the KVM VM, guest memory, the fabric, the supervisor, the vCPU workers and the shards, and takes all of them down
again. What is added before `start` is placed and made at `start`; what is added later goes live at once.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from shardio._core import ffi, lib
from shardio.bus import MmioBus, PioBus
from shardio.errors import ImageError, MachineError, ShardioError
from shardio.fabric import Fabric
from shardio.kvm import Kvm
from shardio.kvm.boot import set_entry
from shardio.kvm.firmware import load_firmware
from shardio.kvm.interrupt import KvmBackend
from shardio.machine.devices import DeviceHandle, DeviceRequest, device_request
from shardio.machine.placement import Placement, pins
from shardio.machine.statistics import ExitInfo, MachineStatistics, ShardStatistics, device_statistics
from shardio.memory import GuestMemory
from shardio.options import parse_size
from shardio.range import MmioRange, PioRange
from shardio.routing import AddressMap, Span, quiesce
from shardio.shard.loading import Factory
from shardio.shard.protocol import Call, DeviceSpec, RangeSpec, RemoveDevice
from shardio.supervisor import DeviceRecord, ShardProcess, Supervisor
from shardio.supervisor.recovery import Policy
from shardio.vcpu import VcpuState, VcpuWorker

REQUEST_TIMEOUT_S = 30.0
"""How long a shard may take to make or drop devices."""
ACCESS_TIMEOUT_S = 30.0
"""How long `remove` and `pause` wait for an access in flight."""
SPARE_SHARDS = 2
SPARE_RANGES = 256

_REASONS = {
    VcpuState.SHUTDOWN: "shutdown",
    VcpuState.SYSTEM: "system event",
    VcpuState.FAILED: "failed",
    VcpuState.BROKEN: "failed",
}


class Machine:
    """A virtual machine under KVM.

    `memory`: guest RAM, bytes or text such as "64M". `vcpus`: how many. `shards`: how many device-owner processes at
    least (None: two, and one for each name that a device asks for). `irqchip`: interrupt controllers and PIT in the
    kernel. `stdin`: a descriptor that becomes the shards' standard input (None: /dev/null). `pin`: give each worker and
    shard a CPU of its own (None: if there are enough). `hang_deadline`: seconds after which a shard that does not answer is
    killed. `max_ranges`: room for address ranges beyond those added before `start`.

    Raises `KvmError` or `HostError` where KVM cannot be used, `MachineError` for arguments that make no machine.

    Methods may be called from any thread, one at a time.
    """

    def __init__(self, memory: str | int = "64M", vcpus: int = 1, shards: int | None = None, *, irqchip: bool = True,
                 stdin: int | None = None, pin: bool | None = None, hang_deadline: float = 1.0,
                 max_ranges: int = SPARE_RANGES) -> None:
        if not 1 <= vcpus <= lib.SIO_MAX_VCPUS:
            raise MachineError(f"{vcpus} vCPUs", f"use 1 to {lib.SIO_MAX_VCPUS}")
        if shards is not None and not 1 <= shards <= lib.SIO_MAX_SHARDS:
            raise MachineError(f"{shards} shards", f"use 1 to {lib.SIO_MAX_SHARDS}")
        if hang_deadline <= 0:
            raise MachineError(f"a hang deadline of {hang_deadline} s", "use a positive number of seconds")
        self.vcpus = vcpus
        self._shards, self._stdin, self._pin = shards, stdin, pin
        self._hang_deadline, self._spare_ranges = hang_deadline, max_ranges
        self._handles: dict[str, DeviceHandle] = {}
        self._ports: PioBus[str] = PioBus()
        self._mmio: MmioBus[str] = MmioBus()
        self._policies: dict[int, Policy | None] = {}
        self._entry: tuple[str, int] | None = None
        self._ended = threading.Event()
        self._exit: ExitInfo | None = None
        self._running_since: int | None = None
        self._ran_ns = 0
        self._stopped = False
        self._fabric: Fabric | None = None
        self._supervisor: Supervisor | None = None
        self._routes: AddressMap | None = None
        self._placement: Placement | None = None
        self._backend: KvmBackend | None = None
        self._cleanup = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            self._kvm = undo.enter_context(Kvm())
            if vcpus > self._kvm.max_vcpus:
                raise MachineError(f"{vcpus} vCPUs", f"KVM here runs at most {self._kvm.max_vcpus}")
            self.memory = undo.enter_context(GuestMemory(parse_size(memory)))
            self._vm = undo.enter_context(self._kvm.create_vm())
            self._vm.set_identity_map_addr()
            self._vm.set_tss_addr()
            if irqchip:
                self._vm.create_irqchip()
                self._vm.create_pit()
                self._backend = KvmBackend(self._vm)
                undo.callback(self._backend.close)
            self._vm.set_memory(self.memory)
            for index in range(vcpus):
                self._vm.create_vcpu(index).set_cpuid(vcpus)
            self._cleanup = undo.pop_all()

    # ---- what the guest is ----

    def load(self, image: str | os.PathLike[str] | bytes, at: int = 0x1000, entry: int | None = None,
             mode: str = "real") -> None:
        """Put a flat image (a path or its bytes) at guest address `at`. The first one loaded says where vCPU 0 begins: at
        `entry` (default: `at`), in `mode` "real", "protected" or "long".

        Raises `ImageError` for a file that cannot be read or does not fit.
        """
        if isinstance(image, bytes | bytearray | memoryview):
            data, name = bytes(image), "image"
        else:
            name = os.fspath(image)
            try:
                data = Path(image).read_bytes()
            except OSError as error:
                raise ImageError(name, f"cannot be read: {error.strerror}", "name a readable file") from None
        if not data:
            raise ImageError(name, "is empty", "assemble or copy it first")
        try:
            self.memory.write(at, data)
        except ShardioError:
            raise ImageError(name, f"of {len(data)} bytes does not fit at {at:#x}",
                             f"give the machine more memory (it has {self.memory.size} bytes) or load it lower") from None
        if self._entry is None:
            self._entry = (mode, at if entry is None else entry)

    def load_firmware(self, image: str | os.PathLike[str]) -> None:
        """Put a firmware image at the top of 4 GiB, its end below 1 MiB, and begin at the reset vector.

        Raises `ImageError` for a file that cannot be firmware.
        """
        self._entry = ("real", load_firmware(self._vm, self.memory, Path(image)))

    def add(self, device: Factory, *, pio: int | None = None, mmio: int | None = None, size: int | None = None,
            irq: int | None = None, shard: str | None = None, posted: bool = False, policy: str | None = None,
            replicas: int = 1, name: str | None = None, **options: Any) -> DeviceHandle:
        """Add a device: a class, a function that makes one, or a dotted path "package.module:Class"; `options` are its
        arguments. It is made in its shard.

        `pio`, `mmio`: the base of its range; `size`: bytes, where the class does not say. `irq`: the interrupt line (GSI)
        of its trigger. `shard`: the name of its owner; without one it goes where the fewest devices are. `posted`: the
        guest does not wait for its writes. `policy`: what becomes of a request that a dying shard had taken: "replay" or
        "fail" (None: replay reads, fail writes). `replicas`: how many shards answer for it (immutable devices only).

        While the guest runs, the device is there when this returns. Raises `DeviceOverlap`, `InvalidRange`, `MachineError`.
        """
        request = device_request(device, name, pio, mmio, size, shard=shard, irq=irq, posted=posted, policy=policy,
                                 replicas=replicas, options=options)
        if request.irq is not None and self._backend is None:
            raise MachineError(f"device {request.name} wants irq {irq}, but there is no in-kernel irqchip", "use irqchip=True")
        if name is None and request.name in self._handles:
            request.name = _unused(request.name, self._handles)
        elif request.name in self._handles:
            raise MachineError(f"there is a device named {request.name!r}", "give each device its own name")
        if replicas > 1 and irq is not None:
            raise MachineError(f"device {request.name} has replicas and an interrupt", "replicate only devices without one")
        self._claim(request)
        handle = DeviceHandle(request, self._call_device)
        try:
            if self._supervisor is not None:
                self._go_live(handle)
        except BaseException:
            self._unclaim(handle.spans)
            raise
        self._handles[handle.name] = handle
        return handle

    def remove(self, device: DeviceHandle | str) -> None:
        """Take a device out. Returns once no access to it is in flight and its shard has dropped it.

        Raises `MachineError` for a device that is not there, or when an access does not end within 30 s.
        """
        handle = self._handles.get(device if isinstance(device, str) else device.name)
        if handle is None or (isinstance(device, DeviceHandle) and handle is not device):
            raise MachineError(f"no device {device!r} in this machine", "remove each device once")
        if self._supervisor is not None:
            self._withdraw(handle)
        self._unclaim(handle.spans)
        del self._handles[handle.name]

    # ---- its life ----

    def start(self) -> None:
        """Make the devices in their shards, then let the vCPUs run. Raises what a device's constructor raised, as text in a
        `MachineError`; then nothing runs and the machine can only be closed.
        """
        if self._supervisor is not None:
            raise MachineError("the machine has been started", "make a new Machine, or use resume() after pause()")
        if self._entry is None:
            raise MachineError("there is nothing to run", "load() an image or load_firmware() first")
        self._build()
        supervisor = self._running_supervisor()
        mode, entry = self._entry
        for vcpu in self._vm.vcpus:
            if vcpu.index == 0 or not self._vm.has_irqchip:
                set_entry(vcpu, self.memory, mode, entry)
        for worker in supervisor.workers:
            supervisor.call(lambda worker=worker: supervisor.start_worker(worker))  # type: ignore[misc]
        self._running_since = time.monotonic_ns()
        supervisor.call(supervisor.keep_spare)

    def pause(self, timeout: float = ACCESS_TIMEOUT_S) -> None:
        """Park every vCPU between two exits, its last access complete. Raises `MachineError` after `timeout` seconds."""
        self._command_all(lib.SIO_PAUSE, VcpuState.PAUSED, timeout)
        if self._running_since is not None:
            self._ran_ns += time.monotonic_ns() - self._running_since
            self._running_since = None

    def resume(self, timeout: float = ACCESS_TIMEOUT_S) -> None:
        """Let paused vCPUs run again."""
        if self._running_since is None:
            self._running_since = time.monotonic_ns()
        self._command_all(lib.SIO_RUN, VcpuState.RUNNING, timeout)

    def wait(self, timeout: float | None = None) -> ExitInfo | None:
        """Wait until the guest ends; None when it has not within `timeout` seconds."""
        return self._exit if self._ended.wait(timeout) else None

    def run(self, timeout: float | None = None) -> ExitInfo:
        """`start`, `wait`, `stop`: how the guest ended, or "stopped" when it had not after `timeout` seconds."""
        self.start()
        self.wait(timeout)
        self.stop()
        assert self._exit is not None
        return self._exit

    def stop(self) -> None:
        """End the vCPUs and the shards. Statistics and memory can still be read. Idempotent."""
        supervisor = self._supervisor
        if self._stopped or supervisor is None:
            return
        self._stopped = True
        self._end(ExitInfo("stopped"))
        supervisor.call(supervisor.stop_workers)
        if self._running_since is not None:
            self._ran_ns += time.monotonic_ns() - self._running_since
            self._running_since = None
        supervisor.call(supervisor.stop_shards)

    def close(self) -> None:
        """`stop`, and give everything back: memory, descriptors, the VM. Idempotent."""
        self.stop()
        supervisor = self._supervisor
        if supervisor is not None:
            supervisor.close()
            for worker in supervisor.workers:
                worker.close()
            for shard in supervisor.shards:
                shard.close()
        self._cleanup.close()
        if self._fabric is not None:
            self._fabric.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def statistics(self) -> MachineStatistics:
        """What the machine has done so far; empty before `start`."""
        supervisor, fabric = self._supervisor, self._fabric
        if supervisor is None or fabric is None:
            return MachineStatistics((), (), ())
        elapsed = self._ran_ns + (time.monotonic_ns() - self._running_since if self._running_since is not None else 0)
        shards = tuple(
            ShardStatistics(shard.name, shard.pid, shard.spawns, counters.progress, counters.sleeps, counters.yields,
                            counters.lost_wakeups, counters.hostile, shard.quarantined)
            for shard in supervisor.shards for counters in [fabric.shard_counters(shard.index)]
        )
        devices = tuple(
            device_statistics(fabric, handle.name, zip(handle.shard_numbers, handle.shards, strict=True),
                              (route.index for route in handle.routes))
            for handle in self._handles.values()
        )
        return MachineStatistics(tuple(worker.statistics(elapsed) for worker in supervisor.workers), devices, shards)

    # ---- building ----

    def _build(self) -> None:
        """The fabric, the supervisor, shards with their devices, and vCPUs that do not run yet."""
        requests = [handle.request for handle in self._handles.values()]
        placement = Placement(self._shards, (request.shard for request in requests if request.shard is not None))
        shard_room = min(lib.SIO_MAX_SHARDS, len(placement.names) + SPARE_SHARDS)
        if len(placement.names) > shard_room:
            raise MachineError(f"{len(placement.names)} shards", f"use at most {lib.SIO_MAX_SHARDS}")
        ranges = sum(len(request.spans) for request in requests) + self._spare_ranges
        self._fabric = Fabric.create(vcpus=self.vcpus, shards=shard_room, ranges=min(ranges, lib.SIO_MAX_RANGES))
        self._placement, self._routes = placement, AddressMap(self._fabric)
        supervisor = self._supervisor = Supervisor(self._fabric, self._routes, self._policy, self._on_event,
                                                   hang_deadline=self._hang_deadline, backend=self._backend, stdin=self._stdin)
        worker_cpus, shard_cpus = pins(self._pin, self.vcpus, len(placement.names))
        for number, name in enumerate(placement.names):
            supervisor.shards.append(ShardProcess(self._fabric, number, name, cpu=shard_cpus[number]))
        # A worker rings doorbells of shards to come, too: each has one from the start.
        for number in range(len(placement.names), shard_room):
            supervisor.shards.append(ShardProcess(self._fabric, number, f"spare{number}"))
        doorbells = {shard.index: shard.doorbell for shard in supervisor.shards}
        for vcpu, cpu in zip(self._vm.vcpus, worker_cpus, strict=True):
            supervisor.workers.append(VcpuWorker(vcpu, self._fabric, doorbells, supervisor.state_event, cpu))
        for number in range(len(placement.names)):
            supervisor.call(lambda shard=supervisor.shards[number]: supervisor.start_shard(shard))  # type: ignore[misc]
        self._add_all(list(self._handles.values()))

    def _go_live(self, handle: DeviceHandle) -> None:
        supervisor, placement = self._running_supervisor(), self._placement
        assert placement is not None
        wanted = handle.request.shard
        if wanted is not None and wanted not in placement.names:
            number = len(placement.names)
            if number == len(supervisor.shards):
                raise MachineError(f"no room for one more shard, {wanted!r}", f"use one of {', '.join(placement.names)}")
            supervisor.shards[number].name = wanted
            supervisor.call(lambda: supervisor.start_shard(supervisor.shards[number]))
            placement.add_shard(wanted)
        self._add_all([handle])

    def _add_all(self, handles: list[DeviceHandle]) -> None:
        """Place devices, make them in their shards, then route to them. All or, for the shards of the failing one, none."""
        supervisor, placement = self._running_supervisor(), self._placement
        assert placement is not None
        by_shard: dict[int, list[DeviceRecord]] = {}
        for handle in handles:
            handle.shard_numbers = placement.place(handle.request.shard, handle.request.replicas)
            handle.shards = tuple(placement.names[number] for number in handle.shard_numbers)
        supervisor.call(lambda: self._route(handles))
        try:
            for handle in handles:
                record = self._record(handle)
                for number in handle.shard_numbers:
                    by_shard.setdefault(number, []).append(record)
            futures = supervisor.call(
                lambda: [supervisor.shards[number].add(records) for number, records in by_shard.items()])
            for future in futures:
                _result(future)
        except BaseException:
            supervisor.call(lambda: self._unroute(handles))
            for handle in handles:
                self._forget(handle)
            raise
        supervisor.call(self._publish)

    def _route(self, handles: list[DeviceHandle]) -> None:
        assert self._routes is not None
        for handle in handles:
            request = handle.request
            handle.routes = tuple(self._routes.add(span, handle.shard_numbers, posted=request.posted) for span in handle.spans)
            for route in handle.routes:
                self._policies[route.index] = request.policy

    def _unroute(self, handles: list[DeviceHandle]) -> None:
        assert self._routes is not None
        for handle in handles:
            for span in handle.spans[: len(handle.routes)]:
                self._routes.remove(span)

    def _publish(self) -> None:
        assert self._routes is not None
        self._routes.publish()

    def _record(self, handle: DeviceHandle) -> DeviceRecord:
        request, fds = handle.request, []
        trigger = memory = -1
        if request.irq is not None and self._backend is not None:
            backend, line = self._backend, request.irq
            handle.irqfd = self._running_supervisor().call(lambda: _connected(backend, line))
            trigger = len(fds)
            fds.append(handle.irqfd.fd)
        if request.dma:
            memory = len(fds)
            fds.append(self.memory.fd)
        ranges = [
            RangeSpec(route.index, "pio" if isinstance(span, PioRange) else "mmio", int(span.base), span.size, request.posted)
            for span, route in zip(handle.spans, handle.routes, strict=True)
        ]
        spec = DeviceSpec(request.name, request.packed, ranges, trigger, memory, self.memory.size if request.dma else 0)
        return DeviceRecord(spec, fds)

    def _withdraw(self, handle: DeviceHandle) -> None:
        supervisor, routes, fabric = self._running_supervisor(), self._routes, self._fabric
        assert routes is not None and fabric is not None
        supervisor.call(lambda: (self._unroute([handle]), self._publish()))
        quiesce((worker.client for worker in supervisor.workers if not worker.ended), ACCESS_TIMEOUT_S)
        indices = [route.index for route in handle.routes]
        for number in handle.shard_numbers:
            shard = supervisor.shards[number]
            supervisor.call(lambda shard=shard: shard.records.pop(handle.name, None))  # type: ignore[misc]
            _result(supervisor.call(lambda shard=shard: shard.request(  # type: ignore[misc]
                lambda serial: RemoveDevice(serial, handle.name, indices))))
        for route in handle.routes:
            for row in range(fabric.vcpus + fabric.shards):
                stat = lib.sio_stat(fabric.view, row, route.index)
                ffi.memmove(stat, bytes(ffi.sizeof("struct sio_stat")), ffi.sizeof("struct sio_stat"))
        supervisor.call(lambda: self._forget(handle))

    def _forget(self, handle: DeviceHandle) -> None:
        assert self._routes is not None
        for route in handle.routes:
            self._routes.release(route)
            self._policies.pop(route.index, None)
        handle.routes = ()
        if handle.irqfd is not None and self._backend is not None:
            self._backend.free(handle.irqfd.handle)
            handle.irqfd = None

    def _claim(self, request: DeviceRequest) -> None:
        """Reserve a device's addresses; all or none."""
        claimed: list[Span] = []
        try:
            for span in request.spans:
                self._check_ram(request.name, span)
                self._bus_of(span).register(span, request.name)  # type: ignore[arg-type]
                claimed.append(span)
        except ShardioError:
            self._unclaim(claimed)
            raise

    def _unclaim(self, spans: Iterable[Span]) -> None:
        for span in spans:
            self._bus_of(span).deregister(int(span.base))

    def _bus_of(self, span: Span) -> PioBus[str] | MmioBus[str]:
        return self._ports if isinstance(span, PioRange) else self._mmio

    def _check_ram(self, name: str, span: Span) -> None:
        for region in self.memory.regions if isinstance(span, MmioRange) else ():
            if span.base < region.end and region.guest_address <= span.last:
                raise MachineError(f"device {name} at {span} lies in guest RAM ({region}), which would answer instead",
                                   "place it between the RAM's end and 4 GiB, at 0xd0000000 say")

    # ---- running ----

    def _running_supervisor(self) -> Supervisor:
        if self._supervisor is None:
            raise MachineError("the machine has not been started", "start() it first")
        return self._supervisor

    def _command_all(self, command: int, state: VcpuState, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        workers = self._running_supervisor().workers
        for worker in workers:
            worker.command(command)
        for worker in workers:
            while worker.state is not state and not worker.ended:
                if time.monotonic() > deadline:
                    raise MachineError(f"vCPU {worker.index} is {worker.state.name.lower()}, not {state.name.lower()}, after "
                                       f"{timeout} s", "its access in flight does not end: see hang_deadline")
                lib.sio_vcpu_wait(worker.view, int(worker.state), 10_000_000)
                worker.kick_again()

    def _call_device(self, handle: DeviceHandle, method: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        supervisor = self._running_supervisor()
        if not handle.routes:
            raise MachineError(f"device {handle.name} is not in the running machine", "add() it again")
        shard, packed = supervisor.shards[handle.shard_numbers[0]], pickle.dumps((arguments, dict(options)))
        return _result(supervisor.call(lambda: shard.request(lambda serial: Call(serial, handle.name, method, packed))))

    def _policy(self, index: int, write: bool) -> Policy:
        chosen = self._policies.get(index)
        return chosen if chosen is not None else Policy.FAIL if write else Policy.REPLAY

    def _on_event(self, kind: str, value: Any) -> None:
        """Called in the supervisor's thread."""
        if kind == "exit":
            self._end(ExitInfo("exit", status=value))
        elif kind == "reset":
            self._end(ExitInfo("reset"))
        elif kind == "failure":
            self._end(ExitInfo("error", detail=str(value)))
        else:
            self._on_vcpu(self._running_supervisor().workers[value])

    def _on_vcpu(self, worker: VcpuWorker) -> None:
        state = worker.state
        if state in _REASONS:
            self._end(ExitInfo(_REASONS[state], vcpu=worker.index, detail=worker.describe_end()))
        elif all(other.state is VcpuState.HALTED for other in self._running_supervisor().workers):
            self._end(ExitInfo("halted", vcpu=worker.index))

    def _end(self, info: ExitInfo) -> None:
        """The first end counts. The vCPUs run on until `stop`, if they can."""
        if self._exit is None:
            self._exit = info
            self._ended.set()


def _connected(backend: KvmBackend, line: int) -> Any:
    irqfd = backend.allocate(line)
    backend.connect(irqfd.handle)
    return irqfd


def _result(future: Future[Any]) -> Any:
    try:
        return future.result(REQUEST_TIMEOUT_S)
    except TimeoutError:
        raise MachineError(f"a shard has not answered for {REQUEST_TIMEOUT_S} s",
                           "a device's constructor or attach() hangs: see its log") from None


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    number = 2
    while f"{name}{number}" in taken:
        number += 1
    return f"{name}{number}"

