"""`Machine`: a virtual machine whose device accesses other processes answer.

It is a dispatcher, a hypervisor that runs the vCPUs, guest RAM, and loaders that fill it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from shardio._core import lib
from shardio.boot import Contents
from shardio.closing import Closing
from shardio.dispatcher import Dispatcher, ExitInfo, MachineStatistics, Shard
from shardio.dispatcher.devices import ACCESS_TIMEOUT_S
from shardio.dispatcher.dispatcher import SPARE_RANGES
from shardio.dispatcher.life import State
from shardio.errors import ExitHookFailed, MachineError, ShardioError
from shardio.machine.forwarded import Forwarded
from shardio.machine.guest import Guest
from shardio.memory import GuestMemory, parse_size
from shardio.supervisor import events
from shardio.supervisor.events import Event
from shardio.supervisor.exits import Hook, UnservedExits
from shardio.supervisor.shard_process import DEATHS
from shardio.vcpu import Vcpu, VcpuState
from shardio.vcpu.choice import check_cpu, open_hypervisor
from shardio.vcpu.report import VcpuReport, examine

if TYPE_CHECKING:
    from shardio.control.server import ControlServer
    from shardio.gdb.server import GdbServer
    from shardio.kvm import Vm
    from shardio.kvm.cpuid import CpuidFilter
    from shardio.supervisor.prompts import TerminalLender

_REASONS = {
    VcpuState.SHUTDOWN: "shutdown",
    VcpuState.SYSTEM: "system event",
    VcpuState.FAILED: "failed",
    VcpuState.BROKEN: "failed",
}


class Machine(Guest, Forwarded, Closing):
    """A virtual machine.

    `memory`: guest RAM, bytes or text such as "64M". `vcpus`: how many. `cpu`: what runs them: "kvm", "soft"
    (a software CPU, on any host: real and protected mode) or "auto": KVM where it works, else software, which
    is told on standard error. `irqchip`: interrupt controllers and PIT in the hypervisor; "split": the local
    APICs alone, for messages. `repairs`: execute instructions that KVM's emulator lacks
    (docs/reference/kvm.md); "auto": where KVM emulates guest code. `cpuid`: a function of a vCPU's number and
    a `shardio.kvm.CpuidLeaf`, which gives the leaf that the guest sees, None for none. `shards`, `stdin`,
    `pin`, `hang_deadline`, `max_deaths`, `max_ranges`, `terminal`: see `Dispatcher`.

    Raises `KvmError` or `HostError` where the CPU cannot be used here, `MachineError` for arguments that make
    no machine.

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
        cpu: str = "auto",
        irqchip: bool | str = True,
        stdin: int | None = None,
        pin: bool | None = None,
        hang_deadline: float = 1.0,
        max_deaths: int = DEATHS,
        max_ranges: int = SPARE_RANGES,
        repairs: bool | str = "auto",
        cpuid: CpuidFilter | None = None,
        terminal: TerminalLender | None = None,
    ) -> None:
        if irqchip not in (True, False, "split"):
            raise MachineError(f"no irqchip {irqchip!r}", 'use True, False or "split"')
        if repairs not in (True, False, "auto"):
            raise MachineError(f"no repairs {repairs!r}", 'use True, False or "auto"')
        check_cpu(cpu)
        Dispatcher.check(vcpus, shards, hang_deadline, max_ranges, max_deaths)
        self.vcpus = vcpus
        self._board: set[str] = set()
        """The names of the devices that the hypervisor brings."""
        self._exits = UnservedExits()
        self._servers: list[Closing] = []
        """Servers by which others reach the machine."""
        self._cleanup = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            self.memory = undo.enter_context(GuestMemory(parse_size(memory)))
            self.hypervisor = open_hypervisor(
                cpu, self.memory, vcpus, irqchip, repairs=repairs, cpuid_filter=cpuid
            )
            undo.callback(self.hypervisor.close)
            self._contents = Contents(self.memory, self.hypervisor, irqchip)
            self.dispatcher = Dispatcher(
                vcpus, shards, self.memory, stdin=stdin, pin=pin, hang_deadline=hang_deadline,
                max_deaths=max_deaths, max_ranges=max_ranges, hypervisor=self.hypervisor,
                on_event=self._on_event, noun="machine", exits=self._exits, terminal=terminal,
            )  # fmt: skip
            self._life = self.dispatcher.life
            self._cleanup = undo.pop_all()
            self._held = True

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if self._held and self._life.state is State.NEW and not self._life.forked:
            _warn(f"unclosed machine of {self.vcpus} vCPUs: close() it", ResourceWarning, source=self)
            self._cleanup.close()

    def on_exit(self, hook: Hook) -> None:
        """Have `hook` decide about exits that the vCPUs do not serve themselves: those that would end them.

        It is called with the `Vcpu`, which stands still, and the exit (`shardio.kvm.OtherExit`: `name`,
        `details`), and may read and change `vcpu.registers`, exceptions and `memory`. It returns "resume" to
        let the guest go on, or "end". It runs in a thread of this process, for one exit at a time; other
        vCPUs go on. What it raises ends the machine: `wait` and `run` raise `ExitHookFailed`. An exit that is
        resumed where it was, with the same registers, ends the vCPU after as many times as any other retry.

        Raises `MachineError` after the machine's end.
        """
        with self._life.turn(State.NEW, State.STARTING, State.RUNNING):
            self._exits.hook = hook

    # ---- its life ----

    def start(self) -> None:
        """Make the devices in their shards, then let the vCPUs run.

        Raises what a device's constructor raised, as text in a `MachineError`; then nothing runs and the
        machine can only be closed.
        """
        with self._life.turn(State.NEW):
            if self._contents.entry is None:
                hint = "load() an image, load_kernel() or load_firmware() first"
                raise MachineError("there is nothing to run", hint)
            for device, irq in self.hypervisor.board:  # behind the user's own devices
                self._board.add(self.dispatcher.add(device, irq=irq).name)
            self.dispatcher.start(self._begin)

    def _begin(self) -> None:
        self._contents.begin(lambda: self.hardware)
        self.dispatcher.run_vcpus()

    def pause(self, timeout: float = ACCESS_TIMEOUT_S) -> None:
        """Park every vCPU between two exits, its last access complete.

        Raises `MachineError` after `timeout` seconds.
        """
        with self._life.turn(State.RUNNING):
            self.dispatcher.command(lib.SIO_PAUSE, VcpuState.PAUSED, timeout)
            self._life.clock_off()

    def resume(self, timeout: float = ACCESS_TIMEOUT_S) -> None:
        """Let paused vCPUs run again."""
        with self._life.turn(State.RUNNING):
            self._life.clock_on()
            self.dispatcher.command(lib.SIO_RUN, VcpuState.RUNNING, timeout)

    @property
    def kvm(self) -> Vm:
        """The VM of KVM, for what has no method here: capabilities, interrupt controllers, its vCPUs.

        Raises `MachineError` on the software CPU.
        """
        found: Vm | None = getattr(self.hypervisor, "vm", None)
        if found is None:
            raise MachineError(f"the {self.hypervisor.name} CPU has no VM of KVM", 'use cpu="kvm"')
        return found

    def vcpu(self, index: int) -> Vcpu:
        """A vCPU of the started machine: its `state`, and its `registers` while it is paused or has ended."""
        if not 0 <= index < self.vcpus:
            raise MachineError(f"no vCPU {index}", f"use 0 to {self.vcpus - 1}")
        return self.dispatcher.supervisor.vcpus[index]

    def examine(self, index: int) -> VcpuReport:
        """Where vCPU `index` is, while it is paused or has ended: its registers, and the instruction there.

        Raises `MachineError` for a vCPU that is not there, `VcpuError` while it runs.
        """
        with self._life.turn(State.RUNNING, State.STOPPED):
            return examine(self.vcpu(index), self.memory)

    def _report(self, index: int) -> VcpuReport | None:
        """`examine` out of turn, in the supervisor's thread, which nothing that is wrong there may end."""
        try:
            return examine(self.dispatcher.supervisor.vcpus[index], self.memory)
        except ShardioError:
            return None

    def wait(self, timeout: float | None = None) -> ExitInfo | None:
        """Wait until the guest ends, or `stop` is called; None when neither happens within `timeout` seconds.
        """
        if self._life.exit is None:
            self._life.require(State.STARTING, State.RUNNING)
        return self._life.wait(timeout)

    async def wait_async(self, timeout: float | None = None) -> ExitInfo | None:
        """`wait` in an event loop, which runs on meanwhile. When it is cancelled, the machine goes on."""
        if self._life.exit is None:
            self._life.require(State.STARTING, State.RUNNING)
        return await self._life.wait_async(timeout)

    def control(self, name: str = "machine", *, stop: Callable[[], None] | None = None) -> ControlServer:
        """Let `shardio ls`, `top`, `pause`, `resume` and `stop` of the same user, or of root, reach this
        machine as `name` (1 to 32 of A-Z a-z 0-9 . _ -), until it is closed. `stop`: what is called, in
        another thread, for a stop (None: `stop`).

        Raises `MachineError` for another name, or one that another machine of this process has.
        """
        from shardio.control.server import ControlServer

        with self._life.turn(State.NEW, State.STARTING, State.RUNNING, State.STOPPED):
            server = ControlServer(self, self._life, name, stop)
            self._servers.append(server)
            return server

    def gdb(
        self,
        where: str,
        *,
        wait: bool = False,
        architecture: str = "auto",
        stop: Callable[[], None] | None = None,
    ) -> GdbServer:
        """Let a debugger that speaks GDB's remote protocol reach this machine at `where`, until it is closed:
        "unix:PATH", ":PORT" of this host alone, or "HOST:PORT" (docs/how-to/gdb.md). `wait`: the guest's
        first instruction waits for it; `architecture`: "i386", "x86-64" or "auto"; `stop`: what is called,
        in another thread, for its `kill` (None: `stop`).

        Raises `DebuggerError` for another place, one that is taken, or a second such server.
        """
        from shardio.gdb.server import GdbServer

        with self._life.turn(State.NEW, State.STARTING, State.RUNNING):
            if wait:
                self._life.require(State.NEW)
            server = GdbServer(
                where, self._life, self._vcpus_there, self._exits, self.memory,
                wide=lambda: self._contents.wide, wait=wait, architecture=architecture,
                stop=self.stop if stop is None else stop,
            )  # fmt: skip
            self._servers.append(server)
            return server

    def _vcpus_there(self) -> Sequence[Vcpu]:
        try:
            return self.dispatcher.supervisor.vcpus
        except MachineError:  # before the start, or after one that failed
            return ()

    def run(self, timeout: float | None = None) -> ExitInfo:
        """`start`, `wait`, `stop`: how the guest ended, or "stopped" when it had not after `timeout` seconds.
        """
        self.start()
        try:
            self.wait(timeout)
        except ExitHookFailed:
            self.stop()
            raise
        self.stop()
        assert self._life.exit is not None
        return self._life.exit

    def stop(self) -> None:
        """End the vCPUs, then the shards. Statistics and memory can still be read. Idempotent; one that was
        broken off (Ctrl-C) can be repeated.
        """
        self.dispatcher.stop()

    def close(self) -> None:
        """`stop`, and give everything back: memory, descriptors, the VM. Idempotent. What waits for a shard
        in another thread, a `start` whose device's constructor hangs say, is broken off by a `MachineError`.
        """
        if self._life.forked:
            return
        for server in self._servers:  # its thread may be waiting for a turn
            server.close()
        with contextlib.ExitStack() as last:
            last.callback(self._give_back)
            self.dispatcher.close()

    def _give_back(self) -> None:
        with self._life.turn():
            if self._life.state is State.CLOSED:
                self._cleanup.close()
                self._held = False

    def statistics(self) -> MachineStatistics:
        """What the machine has done so far, its user's devices first; empty before `start` and after
        `close`.
        """
        found = self.dispatcher.statistics()
        devices = sorted(found.devices, key=lambda device: device.name in self._board)
        return msgspec.structs.replace(found, devices=tuple(devices))

    def _on_event(self, event: Event) -> None:
        """In the supervisor's thread, out of turn: what ends a machine."""
        match event:
            case events.ExitRequested(status):
                self._life.end(ExitInfo("exit", status=status))
            case events.ResetRequested():
                self._life.end(ExitInfo("reset"))
            case events.HookFailed(index, error):
                self._life.end(ExitInfo("error", vcpu=index, detail=error), self._exits.failure)
            case events.Failed(error):
                self._life.end(ExitInfo("error", detail=error))
            case events.VcpuEnded(index, _, detail):
                vcpus = self.dispatcher.supervisor.vcpus
                if (state := vcpus[index].state) in _REASONS:
                    report = self._report(index)
                    self._life.end(ExitInfo(_REASONS[state], vcpu=index, detail=detail, report=report))
                elif all(vcpu.state is VcpuState.HALTED for vcpu in vcpus):
                    self._life.end(ExitInfo("halted", vcpu=index))
