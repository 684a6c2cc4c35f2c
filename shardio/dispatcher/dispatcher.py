"""`Dispatcher`: answers the device accesses of vCPUs in other processes, whatever runs those vCPUs.

It owns the shared memory, the address table, the shards and the supervisor that mends them. What is added
before its start is placed and made at the start; what is added later goes live at once. It starts by itself
when somebody asks for a port, or when the machine over it does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shardio._core import lib
from shardio.closing import Closing
from shardio.dispatcher.arguments import device_request, own_arguments
from shardio.dispatcher.device import DeviceHandle, Span
from shardio.dispatcher.devices import Devices
from shardio.dispatcher.kinds import check_number
from shardio.dispatcher.life import Life, State
from shardio.dispatcher.placement import (
    Placement,
    Shard,
    check_shards,
    give_shards_back,
    pins,
    take_shards,
)
from shardio.dispatcher.statistics import ExitInfo
from shardio.dispatcher.vcpus import Vcpus
from shardio.errors import DeviceFailed, HostError, MachineError
from shardio.fabric import Fabric
from shardio.memory import GuestMemory
from shardio.range import MmioRange
from shardio.shard.loading import Factory
from shardio.supervisor import ShardProcess, Supervisor, events
from shardio.supervisor.events import Event
from shardio.supervisor.exits import UnservedExits
from shardio.supervisor.prompts import TerminalLender
from shardio.supervisor.shard_process import DEATHS

if TYPE_CHECKING:
    from shardio.vcpu import Hypervisor

SPARE_RANGES = 256
SPARE_SHARDS = 2
"""Shards that devices added while it runs may name anew."""


class Dispatcher(Vcpus, Closing):
    """Shards, an address table and supervision for `vcpus` vCPUs.

    `shards`: the device-owner processes: how many at least, or `Shard`s and names (None: two); one more for
    each further name that a device asks for. `memory`: guest RAM for devices that do DMA; it stays the
    caller's. `stdin`: a descriptor that becomes the shards' standard input (None: /dev/null). `pin`: give
    each vCPU and shard a CPU of its own (None: if there are enough). `hang_deadline`: seconds after which a
    shard that does not answer is killed. `max_deaths`: a shard that dies so often within 10 s is given up and
    its devices answer no more; 0: never. `max_ranges`: room for address ranges beyond those added before the
    start. `hypervisor`: what runs the vCPUs; without one they are the user's own processes, with a `port`
    each. `on_event`: called with each event in the supervisor's thread, which it must not hold up; `noun`:
    what messages call the whole; `exits`: what becomes of exits of the hypervisor that nobody serves;
    `terminal`: who lends one to devices at `breakpoint()`.

    Raises `MachineError` for arguments that make no dispatcher. Methods may be called from any thread, and
    take turns. In a fork of this process it cannot be used, and closing it there does nothing.

    >>> from shardio import Dispatcher, MutDeviceMmio
    >>> class Latch(MutDeviceMmio):
    ...     value = 0
    ...     def read(self, offset, size): return self.value
    ...     def write(self, offset, size, value): self.value = value
    >>> with Dispatcher(vcpus=1, shards=1) as dispatcher:
    ...     latch = dispatcher.add(Latch, mmio=0xD000_0000, size=8)
    ...     port, answer = dispatcher.port(0), bytearray(4)
    ...     port.mmio_write(0xD000_0000, b"sync")
    ...     port.mmio_read(0xD000_0000, answer)
    >>> answer
    bytearray(b'sync')
    """

    def __init__(
        self,
        vcpus: int = 1,
        shards: int | Sequence[Shard | str] | None = None,
        memory: GuestMemory | None = None,
        *,
        stdin: int | None = None,
        pin: bool | None = None,
        hang_deadline: float = 1.0,
        max_deaths: int = DEATHS,
        max_ranges: int = SPARE_RANGES,
        hypervisor: Hypervisor | None = None,
        on_event: Callable[[Event], None] = lambda _: None,
        noun: str = "dispatcher",
        exits: UnservedExits | None = None,
        terminal: TerminalLender | None = None,
    ) -> None:
        self.check(vcpus, shards, hang_deadline, max_ranges, max_deaths)
        if stdin is not None:
            check_number("it", "stdin", stdin)
            if not 0 <= stdin < 1 << 31:
                raise MachineError(f"no descriptor {stdin}", "give the number of an open one as stdin")
        super().__init__()
        self.vcpus = vcpus
        self.life = Life(noun)
        self._shards, self._stdin, self._pin = shards, stdin, pin
        self._max_deaths = max_deaths
        self._hang_deadline, self._spare_ranges = hang_deadline, max_ranges
        self._hypervisor = hypervisor
        self._exits = exits
        self._terminal = terminal
        self._devices = Devices(memory, hypervisor, self.life)
        self._on_each = on_event
        self._cleanup = contextlib.ExitStack()
        self._supervisor: Supervisor | None = None
        take_shards(shards, self, noun)

    @staticmethod
    def check(
        vcpus: int, shards: object, hang_deadline: float, max_ranges: int, max_deaths: int = DEATHS
    ) -> None:
        """Raises `MachineError` for arguments that make no dispatcher."""
        for key, number in (("vcpus", vcpus), ("max_deaths", max_deaths), ("max_ranges", max_ranges)):
            check_number("it", key, number)
        if not isinstance(hang_deadline, int | float) or isinstance(hang_deadline, bool):
            raise MachineError(f"a hang deadline of {hang_deadline!r}", "use a positive number of seconds")
        if not 1 <= vcpus <= lib.SIO_MAX_VCPUS:
            raise MachineError(f"{vcpus} vCPUs", f"use 1 to {lib.SIO_MAX_VCPUS}")
        check_shards(shards)
        if not hang_deadline > 0:
            raise MachineError(f"a hang deadline of {hang_deadline} s", "use a positive number of seconds")
        if max_deaths < 0:
            raise MachineError(f"{max_deaths} deaths of a shard", "use a number, or 0 for any number")
        if not 0 <= max_ranges <= lib.SIO_MAX_RANGES:
            raise MachineError(f"room for {max_ranges} more ranges", f"use 0 to {lib.SIO_MAX_RANGES}")

    # ---- devices ----

    def add(
        self,
        device: Factory,
        *,
        pio: int | None = None,
        mmio: int | None = None,
        size: int | None = None,
        ranges: Sequence[Span] | None = None,
        irq: int | None = None,
        irq_mode: str | None = None,
        shard: Shard | str | None = None,
        posted: bool | str = False,
        policy: str | None = None,
        replicas: int = 1,
        name: str | None = None,
        pass_fds: Sequence[int] = (),
        options: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> DeviceHandle:
        """Add a device: a class, a function that makes one, or a dotted path "package.module:Class".

        `arguments` are its own, and `options` those of them whose names this method takes (`size`, `name`).
        It is made in its shard. `pio`, `mmio`: the base of its range; `size`: bytes, where the class does not
        say; `ranges`: all of its ranges, where it has several. Without any of these it gets the `ranges` of
        its class, or a free range. `irq`: the interrupt line (GSI) of its trigger; a class with `needs_irq`
        gets a free one. `irq_mode`: "edge", "level" or, for a level on an ISA line, "followed" (None: the
        class's `irq_mode`, else edge). `shard`: its owner; without one it goes where the fewest devices are.
        `posted`: the guest does not wait for its writes; "coalesced": they go through the hypervisor's ring,
        without an exit, where it has one (all such devices in one shard). `policy`: what becomes of a request
        that a dying shard had taken: "replay" or "fail" (None: replay reads, fail writes). `replicas`: how
        many shards answer for it (immutable devices only). `pass_fds`: descriptors of this process that it is
        given (`host.passed_fds`); they must stay open as long as the device is there.

        While the dispatcher runs, the device is there when this returns. Raises `DeviceOverlap`,
        `InvalidRange`, `RangeTaken` (RAM or the hypervisor would answer in its place), `ResourceUnavailable`,
        `MachineError`.
        """
        request = device_request(
            device, name=name, pio=pio, mmio=mmio, size=size, ranges=ranges, shard=shard, irq=irq,
            irq_mode=irq_mode, posted=posted, policy=policy, replicas=replicas, pass_fds=pass_fds,
            options=own_arguments(device, options or {}, arguments),
        )  # fmt: skip
        with self.life.turn(State.NEW, State.RUNNING):
            handle = self._devices.claim(request, named=name is not None)
            try:
                if self._supervisor is not None:
                    self._devices.add(handle)
            except BaseException:
                self._devices.give_back(handle)
                raise
        return handle

    def remove(self, device: DeviceHandle | str) -> None:
        """Take a device out. Returns once no access to it is in flight and its shard has dropped it.

        Raises `MachineError` for a device that is not there, or when an access does not end within 30 s;
        `DeviceFailed` for what its `detach` raised: it is gone all the same.
        """
        with self.life.turn(State.NEW, State.RUNNING):
            handle = self._devices.find(device)
            if self._supervisor is not None:
                try:
                    self._devices.remove(handle)
                except DeviceFailed:
                    self._devices.give_back(handle)
                    raise
            self._devices.give_back(handle)

    def move(self, device: DeviceHandle | str, *, pio: int | None = None, mmio: int | None = None) -> None:
        """Give a device another base. An access under way ends at the old one first; until the device answers
        at the new one, accesses to both are unclaimed.

        Raises `DeviceOverlap`, `RangeTaken`, and then nothing has changed; `MachineError`.
        """
        with self.life.turn(State.NEW, State.RUNNING):
            handle = self._devices.find(device)
            self._devices.move(handle, pio, mmio)

    def reload(self, *devices: DeviceHandle | str) -> None:
        """Have the shards of these devices (of all, where none is named) load their devices' modules anew,
        and go on with them while the guest runs. An access under way ends first, others wait for some ms.
        A device begins anew but for what outlives its shard, as after a death (`state_type`, a persistent
        memory). The VMM's own program keeps what it has imported: which ranges and options a device has is
        as it was.

        Raises `MachineError` for a device that is not there, and where a module cannot be loaded: then its
        shard goes on as it was. `DeviceFailed` where a device cannot be made: that is a death of its shard.
        """
        with self.life.turn(State.RUNNING):
            self._devices.reload([self._devices.find(device) for device in devices])

    def refuse_memory(self, span: MmioRange) -> None:
        """Raises `MachineError` where memory at `span` would cover RAM, the hypervisor's own, or a device."""
        self._devices.routes.refuse_memory(span)

    # ---- its life ----

    def start(self, begin: Callable[[], None] = lambda: None) -> None:
        """Start the shards and make the devices in them, then call `begin`: vCPUs that a hypervisor runs
        begin there, by `run_vcpus`. Nothing where it runs already.

        Raises what a device's constructor raised, as text in a `MachineError`; then it can only be closed.
        """
        with self.life.turn(State.NEW, State.STARTING, State.RUNNING):
            if self.life.state is State.RUNNING:
                return
            self.life.require(State.NEW)
            self.life.state = State.STARTING
            try:
                self._start()
                begin()
            except OSError as error:
                hint = "raise the limits on open files and processes (ulimit -n, -u)"
                raise HostError(f"the {self.life.noun} cannot start: {error.strerror}", hint) from None
            self.life.state = State.RUNNING

    def _start(self) -> None:
        handles = self.devices
        self._check_recording()
        taken = len(self._devices.routes)
        if taken + self._spare_ranges > lib.SIO_MAX_RANGES:
            raise MachineError(
                f"{taken} address ranges and room for {self._spare_ranges} more",
                f"a {self.life.noun} has {lib.SIO_MAX_RANGES} at most: use a smaller max_ranges or "
                "fewer devices",
            )
        named = (handle.request.shard for handle in handles if handle.request.shard is not None)
        placement = Placement(self._shards, named)
        count = len(placement.names)
        room = min(lib.SIO_MAX_SHARDS, count + SPARE_SHARDS)
        self._fabric = self._cleanup.enter_context(
            Fabric.create(vcpus=self.vcpus, shards=room, ranges=taken + self._spare_ranges)
        )
        hypervisor = self._hypervisor
        supervisor = Supervisor(
            self._fabric,
            self._devices.routes,
            self._devices.policy,
            self._on_event,
            hang_deadline=self._hang_deadline,
            backend=None if hypervisor is None else hypervisor.interrupts,
            doorbells=None if hypervisor is None else hypervisor.doorbells,
            stdin=self._stdin,
            exits=self._exits,
            terminal=self._terminal,
        )
        if self._exits is not None:
            self._exits.on_event = self._on_event
        self._cleanup.callback(self._close_processes, supervisor)
        self._supervisor = supervisor
        vcpu_cpus, shard_cpus = pins(self._pin, self.vcpus, placement.cpus)
        # A vCPU rings doorbells of shards to come, too: each has one from the start.
        for number in range(room):
            name = placement.names[number] if number < count else f"spare{number}"
            cpu = shard_cpus[number] if number < count else None
            shard = ShardProcess(self._fabric, number, name, cpu=cpu, max_deaths=self._max_deaths)
            supervisor.shards.append(shard)
        bells = {shard.index: shard.doorbell for shard in supervisor.shards}
        for index, cpu in enumerate(vcpu_cpus):
            supervisor.vcpus.append(self._vcpu(index, bells, supervisor.state_event, cpu))
        if hypervisor is not None:
            hypervisor.supervised(supervisor.watch, supervisor.forget)
        supervisor.call(lambda: supervisor.expect_shards(count))
        for shard in supervisor.shards[:count]:
            supervisor.call(lambda shard=shard: supervisor.start_shard(shard))  # type: ignore[misc]
        self._devices.start(self._fabric, supervisor, placement)
        self._devices.begin_with(handles)
        self._begin_trace()
        if hypervisor is None:
            supervisor.call(supervisor.keep_spare)

    def stop(self) -> None:
        """End the vCPUs (a port in use ends with an error), then the shards. Statistics can still be read.
        Idempotent; one that was broken off (Ctrl-C) can be repeated.
        """
        if self.life.forked:
            return
        with self.life.turn():
            supervisor = self._supervisor
            if supervisor is None or self.life.state >= State.STOPPED:
                return
            self.life.end(ExitInfo("stopped"))
            supervisor.call(supervisor.stop_vcpus)
            self.life.clock_off()
            supervisor.call(supervisor.stop_shards)
            self._finish()
            self.life.state = State.STOPPED

    def close(self) -> None:
        """`stop`, and give everything back. Idempotent. What waits for a shard in another thread, a `start`
        whose device's constructor hangs say, is broken off by a `MachineError`.
        """
        if self.life.forked:
            return
        self.life.break_off()
        self._close_servers()
        with self.life.turn(), contextlib.ExitStack() as last:
            last.callback(give_shards_back, self)
            last.callback(self._cleanup.close)
            last.callback(self._end_streams)
            self.stop()
            self._finish()  # also what never began
            self.life.state = State.CLOSED
            self._supervisor = None

    def _close_processes(self, supervisor: Supervisor) -> None:
        supervisor.close()
        self._close_ports()
        for vcpu in supervisor.vcpus:
            vcpu.close()
        for shard in supervisor.shards:
            shard.close()
        self._devices.close()

    def _on_event(self, event: Event) -> None:
        """In the supervisor's thread, out of turn."""
        if isinstance(event, events.RangesQuarantined | events.ShardQuarantined):
            self.life.quarantined.extend(event.devices)
        self._tell(event)
        self._on_each(event)
