"""`Machine`: a virtual machine whose device accesses other processes answer.

It holds the KVM VM, guest memory and the list of devices; what runs is its `Engine`. What is added before
`start` is placed and made at `start`; what is added later goes live at once.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shardio._core import lib
from shardio.closing import Closing
from shardio.errors import HostError, MachineError
from shardio.kvm import Kvm
from shardio.kvm.boot import check_mode, set_entry
from shardio.kvm.doorbell import KvmDoorbells
from shardio.kvm.firmware import load_firmware
from shardio.kvm.interrupt import KvmBackend
from shardio.machine.addresses import Addresses
from shardio.machine.devices import DeviceHandle, device_request
from shardio.machine.ends import end_by
from shardio.machine.engine import ACCESS_TIMEOUT_S, Engine
from shardio.machine.image import load_flat
from shardio.machine.life import Life, State
from shardio.machine.placement import Placement, Shard, check_shards
from shardio.machine.statistics import ExitInfo, MachineStatistics
from shardio.machine.tables import hardware
from shardio.memory import GuestMemory
from shardio.options import parse_size
from shardio.platform import TABLE_KINDS, Hardware, place_tables
from shardio.shard.loading import Factory
from shardio.vcpu import VcpuState

SPARE_RANGES = 256


class Machine(Closing):
    """A virtual machine under KVM.

    `memory`: guest RAM, bytes or text such as "64M". `vcpus`: how many. `shards`: the device-owner processes:
    how many at least, or `Shard`s and names (None: two); one more for each further name that a device asks
    for. `irqchip`: interrupt controllers and PIT in the kernel; "split": the local APICs alone, for messages.
    `stdin`: a descriptor that becomes the shards' standard input (None: /dev/null). `pin`: give each worker
    and shard a CPU of its own (None: if there are enough). `hang_deadline`: seconds after which a shard that
    does not answer is killed. `max_ranges`: room for address ranges beyond those added before `start`.

    Raises `KvmError` or `HostError` where KVM cannot be used, `MachineError` for arguments that make no
    machine.

    Methods may be called from any thread, and take turns; `stop` ends a `run` or `wait` in another one. In a
    fork of this process the machine cannot be used, and closing it there does nothing. A machine that is
    dropped before its start gives back what it holds, with a `ResourceWarning`; a started one stays until it
    is closed.
    """

    _held = False

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
        check_shards(shards)
        if not hang_deadline > 0:
            raise MachineError(f"a hang deadline of {hang_deadline} s", "use a positive number of seconds")
        if irqchip not in (True, False, "split"):
            raise MachineError(f"no irqchip {irqchip!r}", 'use True, False or "split"')
        if not 0 <= max_ranges <= lib.SIO_MAX_RANGES:
            raise MachineError(f"room for {max_ranges} more ranges", f"use 0 to {lib.SIO_MAX_RANGES}")
        self.vcpus = vcpus
        self._irqchip = irqchip
        self._shards, self._stdin, self._pin = shards, stdin, pin
        self._hang_deadline, self._spare_ranges = hang_deadline, max_ranges
        self._handles: dict[str, DeviceHandle] = {}
        self._entry: tuple[str, int] | None = None
        self._has_firmware = False
        self._tables: set[str] = set()
        self._engine: Engine | None = None
        self._life = Life()
        self._backend: KvmBackend | None = None
        self._cleanup = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            kvm = undo.enter_context(Kvm())
            if vcpus > kvm.max_vcpus:
                raise MachineError(f"{vcpus} vCPUs", f"KVM here runs at most {kvm.max_vcpus}")
            self.memory = undo.enter_context(GuestMemory(parse_size(memory)))
            self._addresses = Addresses(self.memory.regions, irqchip)
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
            self._held = True

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if self._held and self._engine is None and not self._life.forked:
            _warn(f"unclosed machine of {self.vcpus} vCPUs: close() it", ResourceWarning, source=self)
            self._cleanup.close()

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
        "protected" or "long". Raises `ImageError` for a file that cannot be read or does not fit,
        `MachineError` for another mode.
        """
        check_mode(mode)
        with self._life.turn(State.NEW, State.STARTING, State.RUNNING):
            load_flat(self.memory, image, at)
        if self._entry is None:
            self._entry = (mode, at if entry is None else entry)

    def load_firmware(self, image: str | os.PathLike[str]) -> None:
        """Put a firmware image at the top of 4 GiB, its end below 1 MiB, and begin at the reset vector.

        Raises `ImageError` for a file that cannot be firmware.
        """
        if self._tables:
            raise MachineError("firmware makes its own tables", "leave load_tables() out")
        with self._life.turn(State.NEW):
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
        with self._life.turn(State.NEW):
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
        `RangeTaken` (RAM or KVM would answer in its place), `MachineError`.
        """
        request = device_request(
            device,
            name,
            pio,
            mmio,
            size,
            shard=shard,
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
        with self._life.turn(State.NEW, State.RUNNING):
            if request.name in self._handles:
                if name is not None:
                    raise MachineError(f"there is a device named {name!r}", "give each device its own name")
                request.name = _unused(request.name, self._handles)
            self._addresses.claim(request.name, request.spans)
            handle = DeviceHandle(request, self._call_device)
            try:
                if self._engine is not None:
                    self._engine.add([handle])
            except BaseException:
                self._addresses.give_back(handle.spans)
                raise
            self._handles[handle.name] = handle
        return handle

    def remove(self, device: DeviceHandle | str) -> None:
        """Take a device out. Returns once no access to it is in flight and its shard has dropped it.

        Raises `MachineError` for a device that is not there, or when an access does not end within 30 s.
        """
        with self._life.turn(State.NEW, State.RUNNING):
            handle = self._handles.get(device if isinstance(device, str) else device.name)
            if handle is None or (isinstance(device, DeviceHandle) and handle is not device):
                raise MachineError(f"no device {device!r} in this machine", "remove each device once")
            if self._engine is not None:
                self._engine.remove(handle)
            self._addresses.give_back(handle.spans)
            del self._handles[handle.name]

    # ---- its life ----

    def start(self) -> None:
        """Make the devices in their shards, then let the vCPUs run.

        Raises what a device's constructor raised, as text in a `MachineError`; then nothing runs and the
        machine can only be closed.
        """
        with self._life.turn(State.NEW):
            if self._entry is None:
                raise MachineError("there is nothing to run", "load() an image or load_firmware() first")
            self._life.state = State.STARTING
            self._start(*self._entry)
            self._life.state = State.RUNNING

    def _start(self, mode: str, entry: int) -> None:
        handles = list(self._handles.values())
        engine = self._engine = self._new_engine(handles)
        engine.begin_with(handles)
        for kind in sorted(self._tables):
            place_tables(kind, self.hardware, self.memory)
        for vcpu in self._vm.vcpus:
            if vcpu.index == 0 or not self._vm.has_irqchip:
                set_entry(vcpu, self.memory, mode, entry)
        engine.start()
        self._life.clock_on()

    def _new_engine(self, handles: Sequence[DeviceHandle]) -> Engine:
        named = (handle.request.shard for handle in handles if handle.request.shard is not None)
        taken = sum(len(handle.spans) for handle in handles)
        if taken + self._spare_ranges > lib.SIO_MAX_RANGES:
            raise MachineError(
                f"{taken} address ranges and room for {self._spare_ranges} more",
                f"a machine has {lib.SIO_MAX_RANGES} at most: use a smaller max_ranges, or fewer devices",
            )
        try:
            return Engine(
                self._vm,
                self.memory,
                Placement(self._shards, named),
                self._on_event,
                ranges=taken + self._spare_ranges,
                pin=self._pin,
                hang_deadline=self._hang_deadline,
                backend=self._backend,
                doorbells=self._doorbells,
                stdin=self._stdin,
                closing=self._life.closing,
            )
        except OSError as error:
            cure = "raise the limits on open files and processes (ulimit -n, -u)"
            raise HostError(f"the machine cannot start: {error.strerror}", cure) from None

    def pause(self, timeout: float = ACCESS_TIMEOUT_S) -> None:
        """Park every vCPU between two exits, its last access complete.

        Raises `MachineError` after `timeout` seconds.
        """
        with self._life.turn(State.RUNNING):
            self._started().command(lib.SIO_PAUSE, VcpuState.PAUSED, timeout)
            self._life.clock_off()

    def resume(self, timeout: float = ACCESS_TIMEOUT_S) -> None:
        """Let paused vCPUs run again."""
        with self._life.turn(State.RUNNING):
            self._life.clock_on()
            self._started().command(lib.SIO_RUN, VcpuState.RUNNING, timeout)

    def wait(self, timeout: float | None = None) -> ExitInfo | None:
        """Wait until the guest ends, or `stop` is called; None when neither happens within `timeout` seconds.
        """
        if self._life.exit is None:
            self._life.require(State.STARTING, State.RUNNING)
        return self._life.wait(timeout)

    def run(self, timeout: float | None = None) -> ExitInfo:
        """`start`, `wait`, `stop`: how the guest ended, or "stopped" when it had not after `timeout` seconds.
        """
        self.start()
        self.wait(timeout)
        self.stop()
        assert self._life.exit is not None
        return self._life.exit

    def stop(self) -> None:
        """End the vCPUs, then the shards. Statistics and memory can still be read. Idempotent; one that was
        broken off (Ctrl-C) can be repeated.
        """
        if self._life.forked:
            return
        with self._life.turn():
            if self._engine is None or self._life.state >= State.STOPPED:
                return
            self._life.end(ExitInfo("stopped"))
            self._engine.stop_workers()
            self._life.clock_off()
            self._engine.stop_shards()
            self._life.state = State.STOPPED

    def close(self) -> None:
        """`stop`, and give everything back: memory, descriptors, the VM. Idempotent. What waits for a shard
        in another thread, a `start` whose device's constructor hangs say, is broken off by a `MachineError`.
        """
        if self._life.forked:
            return
        self._life.break_off()
        with self._life.turn(), contextlib.ExitStack() as last:
            self.stop()
            self._life.state = State.CLOSED
            engine, self._engine = self._engine, None
            if engine is not None:
                last.callback(engine.close)
            last.callback(self._cleanup.close)
            self._held = False

    def statistics(self) -> MachineStatistics:
        """What the machine has done so far; empty before `start` and after `close`."""
        with self._life.turn():
            if self._engine is None:
                return MachineStatistics((), (), ())
            return self._engine.statistics(self._handles.values(), self._life.ran_ns)

    # ---- its parts ----

    def _started(self) -> Engine:
        self._life.require(State.STARTING, State.RUNNING)
        assert self._engine is not None
        return self._engine

    def _call_device(
        self, handle: DeviceHandle, method: str, arguments: tuple[Any, ...], options: Mapping[str, Any]
    ) -> Any:
        return self._started().call_device(handle, method, arguments, options)

    def _on_event(self, kind: str, value: Any) -> None:
        """In the supervisor's thread, out of turn."""
        workers = self._engine.supervisor.workers if self._engine is not None else ()
        if (info := end_by(kind, value, workers)) is not None:
            self._life.end(info)


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    number = 2
    while f"{name}{number}" in taken:
        number += 1
    return f"{name}{number}"
