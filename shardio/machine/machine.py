"""`Machine`: a virtual machine whose device accesses other processes answer.

It holds the KVM VM, guest memory and the list of devices; what runs is its `Engine`. What is added before
`start` is placed and made at `start`; what is added later goes live at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from shardio._core import lib
from shardio.bus import MmioBus, PioBus
from shardio.errors import ImageError, MachineError, ShardioError
from shardio.kvm import Kvm
from shardio.kvm.boot import set_entry
from shardio.kvm.doorbell import KvmDoorbells
from shardio.kvm.firmware import load_firmware
from shardio.kvm.interrupt import KvmBackend
from shardio.machine.devices import DeviceHandle, DeviceRequest, device_request
from shardio.machine.engine import ACCESS_TIMEOUT_S, Engine
from shardio.machine.placement import Placement, Shard
from shardio.machine.statistics import ExitInfo, MachineStatistics
from shardio.machine.tables import hardware
from shardio.memory import GuestMemory
from shardio.options import parse_size
from shardio.platform import TABLE_KINDS, Hardware, place_tables
from shardio.range import MmioRange, PioRange
from shardio.routing import Span
from shardio.shard.loading import Factory
from shardio.vcpu import VcpuState

SPARE_RANGES = 256

_REASONS = {
    VcpuState.SHUTDOWN: "shutdown",
    VcpuState.SYSTEM: "system event",
    VcpuState.FAILED: "failed",
    VcpuState.BROKEN: "failed",
}


class Machine:
    """A virtual machine under KVM.

    `memory`: guest RAM, bytes or text such as "64M". `vcpus`: how many. `shards`: the device-owner processes:
    how many at least, or `Shard`s and names (None: two); one more for each further name that a device asks
    for. `irqchip`: interrupt controllers and PIT in the kernel; "split": the local APICs alone, for messages.
    `stdin`: a descriptor that becomes the shards' standard input (None: /dev/null). `pin`: give each worker
    and shard a CPU of its own (None: if there are enough). `hang_deadline`: seconds after which a shard that
    does not answer is killed. `max_ranges`: room for address ranges beyond those added before `start`.

    Raises `KvmError` or `HostError` where KVM cannot be used, `MachineError` for arguments that make no
    machine.

    Methods may be called from any thread, one at a time.
    """

    def __init__(
        self,
        memory: str | int = "64M",
        vcpus: int = 1,
        shards: int | Sequence[Shard | str] | None = None,
        *,
        irqchip: bool | str = True,
        stdin: int | None = None,
        pin: bool | None = None,
        hang_deadline: float = 1.0,
        max_ranges: int = SPARE_RANGES,
    ) -> None:
        if not 1 <= vcpus <= lib.SIO_MAX_VCPUS:
            raise MachineError(f"{vcpus} vCPUs", f"use 1 to {lib.SIO_MAX_VCPUS}")
        count = shards if isinstance(shards, int) else len(shards) if shards is not None else 1
        if not 1 <= count <= lib.SIO_MAX_SHARDS:
            raise MachineError(f"{count} shards", f"use 1 to {lib.SIO_MAX_SHARDS}")
        if hang_deadline <= 0:
            raise MachineError(f"a hang deadline of {hang_deadline} s", "use a positive number of seconds")
        if irqchip not in (True, False, "split"):
            raise MachineError(f"no irqchip {irqchip!r}", 'use True, False or "split"')
        self.vcpus = vcpus
        self._irqchip = irqchip
        self._shards, self._stdin, self._pin = shards, stdin, pin
        self._hang_deadline, self._spare_ranges = hang_deadline, max_ranges
        self._handles: dict[str, DeviceHandle] = {}
        self._ports: PioBus[str] = PioBus()
        self._mmio: MmioBus[str] = MmioBus()
        self._entry: tuple[str, int] | None = None
        self._has_firmware = False
        self._tables: set[str] = set()
        self._engine: Engine | None = None
        self._ended = threading.Event()
        self._exit: ExitInfo | None = None
        self._running_since: int | None = None
        self._ran_ns = 0
        self._stopped = False
        self._backend: KvmBackend | None = None
        self._cleanup = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            kvm = undo.enter_context(Kvm())
            if vcpus > kvm.max_vcpus:
                raise MachineError(f"{vcpus} vCPUs", f"KVM here runs at most {kvm.max_vcpus}")
            self.memory = undo.enter_context(GuestMemory(parse_size(memory)))
            self._vm = undo.enter_context(kvm.create_vm())
            self._vm.set_identity_map_addr()
            self._vm.set_tss_addr()
            if irqchip:
                self._backend = KvmBackend(self._vm, split=irqchip == "split")
                undo.callback(self._backend.close)
            if irqchip == "split":
                self._vm.create_split_irqchip()
            elif irqchip:
                self._vm.create_irqchip()
                self._vm.create_pit()
            self._doorbells = KvmDoorbells(self._vm)
            undo.callback(self._doorbells.close)
            self._vm.set_memory(self.memory)
            for index in range(vcpus):
                self._vm.create_vcpu(index).set_cpuid(vcpus)
            self._cleanup = undo.pop_all()

    # ---- what the guest is ----

    def load(
        self,
        image: str | os.PathLike[str] | bytes,
        at: int = 0x1000,
        entry: int | None = None,
        mode: str = "real",
    ) -> None:
        """Put a flat image (a path or its bytes) at guest address `at`.

        The first one loaded says where vCPU 0 begins: at `entry` (default: `at`), in `mode` "real",
        "protected" or "long". Raises `ImageError` for a file that cannot be read or does not fit.
        """
        name, data = _contents(image)
        try:
            self.memory.write(at, data)
        except ShardioError:
            raise ImageError(
                name,
                f"of {len(data)} bytes does not fit at {at:#x}",
                f"give the machine more memory (it has {self.memory.size} bytes) or load it lower",
            ) from None
        if self._entry is None:
            self._entry = (mode, at if entry is None else entry)

    def load_firmware(self, image: str | os.PathLike[str]) -> None:
        """Put a firmware image at the top of 4 GiB, its end below 1 MiB, and begin at the reset vector.

        Raises `ImageError` for a file that cannot be firmware.
        """
        if self._tables:
            raise MachineError("firmware makes its own tables", "leave load_tables() out")
        self._entry = ("real", load_firmware(self._vm, self.memory, Path(image)))
        self._has_firmware = True

    def load_tables(self, kind: str) -> None:
        """Tell the guest's kernel of its devices: "acpi" or "mp" tables, written below 1 MiB at `start` (see
        `shardio.platform.place`). They name the devices that are there then and have a `compatible`.

        Raises `MachineError` for another kind, for firmware (it makes its own), or without an irqchip.
        """
        if kind not in TABLE_KINDS:
            raise MachineError(f"no tables {kind!r}", f"use one of {', '.join(TABLE_KINDS)}")
        if self._irqchip is not True:
            raise MachineError("the tables name interrupt controllers and there are none", "use irqchip=True")
        if self._has_firmware:
            raise MachineError("firmware makes its own tables", "load an image, or leave the tables to it")
        if self._engine is not None:
            raise MachineError("the machine has been started", "ask for tables before that")
        self._tables.add(kind)

    @property
    def hardware(self) -> Hardware:
        """What the machine holds, as `shardio.platform` makes tables and device trees of it."""
        return hardware(self.vcpus, self.memory, (handle.request for handle in self._handles.values()))

    def add(
        self,
        device: Factory,
        *,
        pio: int | None = None,
        mmio: int | None = None,
        size: int | None = None,
        irq: int | None = None,
        irq_mode: str | None = None,
        shard: Shard | str | None = None,
        posted: bool | str = False,
        policy: str | None = None,
        replicas: int = 1,
        name: str | None = None,
        **options: Any,
    ) -> DeviceHandle:
        """Add a device: a class, a function that makes one, or a dotted path "package.module:Class".

        `options` are its arguments; it is made in its shard. `pio`, `mmio`: the base of its range; `size`:
        bytes, where the class does not say. `irq`: the interrupt line (GSI) of its trigger; `irq_mode`:
        "edge" or "level" (None: the class's `irq_mode`, else edge). `shard`: its owner; without one it goes
        where the fewest devices are. `posted`: the guest does not wait for its writes; "coalesced": they go
        through KVM's ring, without an exit (all such devices in one shard). `policy`: what becomes of a
        request that a dying shard had taken: "replay" or "fail" (None: replay reads, fail writes).
        `replicas`: how many shards answer for it (immutable devices only).

        While the guest runs, the device is there when this returns. Raises `DeviceOverlap`, `InvalidRange`,
        `MachineError`.
        """
        owner = shard.name if isinstance(shard, Shard) else shard
        request = device_request(
            device,
            name,
            pio,
            mmio,
            size,
            shard=owner,
            irq=irq,
            irq_mode=irq_mode,
            posted=posted,
            policy=policy,
            replicas=replicas,
            options=options,
        )
        if request.irq is not None and self._backend is None:
            cure = "use irqchip=True"
            raise MachineError(f"device {request.name} wants irq {irq} without an in-kernel irqchip", cure)
        if request.name in self._handles:
            if name is not None:
                raise MachineError(f"there is a device named {name!r}", "give each device its own name")
            request.name = _unused(request.name, self._handles)
        self._claim(request)
        handle = DeviceHandle(request, self._call_device)
        try:
            if self._engine is not None:
                self._engine.add([handle])
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
        if self._engine is not None:
            self._engine.remove(handle)
        self._unclaim(handle.spans)
        del self._handles[handle.name]

    # ---- its life ----

    def start(self) -> None:
        """Make the devices in their shards, then let the vCPUs run.

        Raises what a device's constructor raised, as text in a `MachineError`; then nothing runs and the
        machine can only be closed.
        """
        if self._engine is not None:
            raise MachineError("the machine has been started", "make a new one, or resume() after pause()")
        if self._entry is None:
            raise MachineError("there is nothing to run", "load() an image or load_firmware() first")
        handles = list(self._handles.values())
        named = (handle.request.shard for handle in handles if handle.request.shard is not None)
        engine = self._engine = Engine(
            self._vm,
            self.memory,
            Placement(self._shards, named),
            self._on_event,
            ranges=sum(len(handle.spans) for handle in handles) + self._spare_ranges,
            pin=self._pin,
            hang_deadline=self._hang_deadline,
            backend=self._backend,
            doorbells=self._doorbells,
            stdin=self._stdin,
        )
        engine.add(handles)
        for kind in sorted(self._tables):
            place_tables(kind, self.hardware, self.memory)
        mode, entry = self._entry
        for vcpu in self._vm.vcpus:
            if vcpu.index == 0 or not self._vm.has_irqchip:
                set_entry(vcpu, self.memory, mode, entry)
        engine.start()
        self._running_since = time.monotonic_ns()

    def pause(self, timeout: float = ACCESS_TIMEOUT_S) -> None:
        """Park every vCPU between two exits, its last access complete.

        Raises `MachineError` after `timeout` seconds.
        """
        self._started().command(lib.SIO_PAUSE, VcpuState.PAUSED, timeout)
        self._clock_off()

    def resume(self, timeout: float = ACCESS_TIMEOUT_S) -> None:
        """Let paused vCPUs run again."""
        engine = self._started()
        if self._running_since is None:
            self._running_since = time.monotonic_ns()
        engine.command(lib.SIO_RUN, VcpuState.RUNNING, timeout)

    def wait(self, timeout: float | None = None) -> ExitInfo | None:
        """Wait until the guest ends; None when it has not within `timeout` seconds."""
        self._started()
        return self._exit if self._ended.wait(timeout) else None

    def run(self, timeout: float | None = None) -> ExitInfo:
        """`start`, `wait`, `stop`: how the guest ended, or "stopped" when it had not after `timeout` seconds.
        """
        self.start()
        self.wait(timeout)
        self.stop()
        assert self._exit is not None
        return self._exit

    def stop(self) -> None:
        """End the vCPUs, then the shards. Statistics and memory can still be read. Idempotent."""
        if self._stopped or self._engine is None:
            return
        self._stopped = True
        self._end(ExitInfo("stopped"))
        self._engine.stop_workers()
        self._clock_off()
        self._engine.stop_shards()

    def close(self) -> None:
        """`stop`, and give everything back: memory, descriptors, the VM. Idempotent."""
        self.stop()
        self._cleanup.close()
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def statistics(self) -> MachineStatistics:
        """What the machine has done so far; empty before `start` and after `close`."""
        if self._engine is None:
            return MachineStatistics((), (), ())
        now = time.monotonic_ns() - self._running_since if self._running_since is not None else 0
        return self._engine.statistics(self._handles.values(), self._ran_ns + now)

    # ---- its parts ----

    def _started(self) -> Engine:
        if self._engine is None:
            raise MachineError("the machine does not run", "start() it first")
        return self._engine

    def _clock_off(self) -> None:
        if self._running_since is not None:
            self._ran_ns += time.monotonic_ns() - self._running_since
            self._running_since = None

    def _call_device(
        self, handle: DeviceHandle, method: str, arguments: tuple[Any, ...], options: Mapping[str, Any]
    ) -> Any:
        return self._started().call_device(handle, method, arguments, options)

    def _claim(self, request: DeviceRequest) -> None:
        """Reserve a device's addresses; all or none."""
        claimed: list[Span] = []
        try:
            for span in request.spans:
                self._check_ram(request.name, span)
                self._bus(span).register(span, request.name)  # type: ignore[arg-type]
                claimed.append(span)
        except ShardioError:
            self._unclaim(claimed)
            raise

    def _unclaim(self, spans: Iterable[Span]) -> None:
        for span in spans:
            self._bus(span).deregister(int(span.base))

    def _bus(self, span: Span) -> PioBus[str] | MmioBus[str]:
        return self._ports if isinstance(span, PioRange) else self._mmio

    def _check_ram(self, name: str, span: Span) -> None:
        for region in self.memory.regions if isinstance(span, MmioRange) else ():
            if span.base < region.end and region.guest_address <= span.last:
                raise MachineError(
                    f"device {name} at {span} lies in guest RAM ({region}), which would answer instead",
                    "place it between the RAM's end and 4 GiB, at 0xd0000000 say",
                )

    # ---- its end: called in the supervisor's thread ----

    def _on_event(self, kind: str, value: Any) -> None:
        if kind == "exit":
            self._end(ExitInfo("exit", status=value))
        elif kind == "reset":
            self._end(ExitInfo("reset"))
        elif kind == "failure":
            self._end(ExitInfo("error", detail=str(value)))
        else:
            self._on_vcpu(value)

    def _on_vcpu(self, index: int) -> None:
        workers = self._started().supervisor.workers
        worker = workers[index]
        if worker.state in _REASONS:
            self._end(ExitInfo(_REASONS[worker.state], vcpu=index, detail=worker.describe_end()))
        elif all(other.state is VcpuState.HALTED for other in workers):
            self._end(ExitInfo("halted", vcpu=index))

    def _end(self, info: ExitInfo) -> None:
        """The first end counts. The vCPUs run on until `stop`, if they can."""
        if self._exit is None:
            self._exit = info
            self._ended.set()


def _contents(image: str | os.PathLike[str] | bytes) -> tuple[str, bytes]:
    if isinstance(image, bytes | bytearray | memoryview):
        name, data = "image", bytes(image)
    else:
        name = os.fspath(image)
        try:
            data = Path(image).read_bytes()
        except OSError as error:
            few = error.errno == errno.EMFILE
            cure = "raise the limit on open files (ulimit -n)" if few else "name a readable file"
            raise ImageError(name, f"cannot be read: {error.strerror}", cure) from None
    if not data:
        raise ImageError(name, "is empty", "assemble or copy it first")
    return name, data


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    number = 2
    while f"{name}{number}" in taken:
        number += 1
    return f"{name}{number}"
