"""Software vCPUs: spawned workers that execute the guest by Unicorn (native/soft_worker.c).

A worker that dies inside an access, between two instructions or while it sleeps is replaced exactly; one that
dies while it executes guest code leaves memory that nobody can tell the state of: the vCPU ends as BROKEN.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Mapping
from typing import Any, Final

from shardio._core import ffi, lib
from shardio.errors import MachineError, VcpuError
from shardio.fabric import Fabric
from shardio.fabric.port_record import set_up
from shardio.kvm.exits import Exit, decode
from shardio.memory import GuestMemory
from shardio.range import MmioRange
from shardio.soft.library import HINT
from shardio.soft.machine import SoftMachine
from shardio.soft.paging import walk
from shardio.soft.process import Start, start
from shardio.soft.record import Record
from shardio.vcpu.debug import DebugPlan, DebugStop, Watch
from shardio.vcpu.soft_registers import SoftRegisters
from shardio.vcpu.worker import Worker

_WATCHED: Final = {
    "write": lib.SIO_SOFT_WATCH_WRITES,
    "read": lib.SIO_SOFT_WATCH_READS,
    "access": lib.SIO_SOFT_WATCH_READS | lib.SIO_SOFT_WATCH_WRITES,
}
STILLBORN = 5
"""Workers that may die, one after the other, before they take their vCPU over."""


class SoftWorker(Worker):
    """The worker of one software vCPU of a machine's `record`; it is started with what it is `told`.
    `ram`: the guest's, for a debugger.
    """

    def __init__(
        self,
        record: Record,
        fabric: Fabric,
        told: Start,
        cpu: int | None,
        ram: GuestMemory | None = None,
    ) -> None:
        self._record = record
        self._ram = ram
        self._vcpu = record.vcpu(told.index)
        self._memory = record.memory
        super().__init__(told.index, fabric, ffi.addressof(self._vcpu, "vcpu"))
        set_up(self.client, fabric, told.index, {}, 1)
        self.view.event = told.event
        self.view.parent = os.getpid()
        self.view.affinity = -1 if cpu is None else cpu
        self._told = told
        self._process: subprocess.Popen[bytes] | None = None
        self._stillborn = 0
        self._spawns = 0

    def spawn(self) -> None:
        """See `Vcpu.spawn`."""
        if self._stillborn >= STILLBORN:
            hint = "see its messages on standard error"
            raise VcpuError(self.index, "its worker ends before it begins", hint)
        try:
            self._process = start(self._told)
            self.pidfd = os.pidfd_open(self._process.pid)
        except OSError as error:
            hint = "raise the limits on processes and open files (ulimit -u, -n)"
            raise VcpuError(self.index, f"its worker cannot be started: {error.strerror}", hint) from error
        self.pid = self._process.pid

    def command(self, command: int) -> None:
        """See `Vcpu.command`."""
        lib.sio_soft_command(self._vcpu, self._record.page, command, self.pid)

    def kick_again(self) -> None:
        """See `Vcpu.kick_again`."""
        self.command(self.view.command)

    def reap(self) -> int | None:
        """See `Vcpu.reap`. Another vCPU gets the turn that a dead worker had."""
        cause = super().reap()
        if cause is not None:
            if self._process is not None:
                self._process.returncode = -cause  # it is reaped: nobody must wait for its number
            self._stillborn = 0 if self.view.spawns > self._spawns else self._stillborn + 1
            self._spawns = self.view.spawns
            lib.sio_soft_bury(self._record.view, self.index)
        return cause

    @property
    def registers(self) -> SoftRegisters:
        """See `Vcpu.registers`."""
        return SoftRegisters(self._vcpu, self.index, self.require_parked)

    @property
    def mp_state(self) -> str:
        """See `Vcpu.mp_state`."""
        self.require_parked()
        if self._vcpu.waits_for_sipi:
            return "uninitialized"
        return "halted" if self._vcpu.halted else "runnable"

    @property
    def pending_exception(self) -> int | None:
        """See `Vcpu.pending_exception`."""
        self.require_parked()
        return self._vcpu.inject - 1 if self._vcpu.inject else None

    def raise_exception(self, vector: int, error_code: int | None = None) -> None:
        """See `Vcpu.raise_exception`. Handlers get the error code 0."""
        self.require_parked()
        if not 0 <= vector <= 255:
            raise VcpuError(self.index, f"has no vector {vector}", "use 0 to 255")
        self._vcpu.inject = vector + 1

    def cancel_exception(self) -> None:
        """See `Vcpu.cancel_exception`."""
        self.require_parked()
        self._vcpu.inject = 0

    def inspect(self) -> None:
        """See `Vcpu.inspect`."""
        lib.sio_soft_inspect(self._vcpu, self._record.page, self.pid)

    @property
    def inspected(self) -> bool:
        """See `Vcpu.inspected`."""
        return bool(lib.sio_soft_record(self._vcpu).exit_reason == lib.KVM_EXIT_INTR)

    # ---- a debugger ----

    def check_watch(self, watch: Watch) -> None:
        """See `Vcpu.check_watch`. Any size may be watched."""

    def check_room(self, breakpoints: int, hardware: int, watches: int) -> None:
        """See `Vcpu.check_room`."""
        if breakpoints + hardware > lib.SIO_SOFT_BREAKPOINTS or watches > lib.SIO_SOFT_WATCHES:
            most = f"{lib.SIO_SOFT_BREAKPOINTS} breakpoints and {lib.SIO_SOFT_WATCHES} watchpoints at most"
            raise VcpuError(self.index, f"has {most}", "remove one")

    def set_debug(self, plan: DebugPlan) -> None:
        """See `Vcpu.set_debug`."""
        self.require_parked()
        debug, breakpoints = self._vcpu.debug, sorted(plan.breakpoints | plan.hardware)
        self.check_room(len(breakpoints), 0, len(plan.watches))
        for number, each in enumerate(plan.watches):
            physical = self.translate(each.address)
            if physical is None:
                raise VcpuError(self.index, f"nothing is mapped at {each.address:#x}", "watch it later")
            watch = debug.watch[number]
            watch.address, watch.size, watch.kind = physical, each.size, _WATCHED[each.kind]
        debug.breakpoint[0 : len(breakpoints)] = [each & 0xFFFF_FFFF for each in breakpoints]
        debug.step, debug.breakpoints, debug.watches = plan.step, len(breakpoints), len(plan.watches)
        debug.wrote |= plan.wrote
        debug.resumed = 1

    def debug_stop(self, plan: DebugPlan) -> DebugStop | None:
        """See `Vcpu.debug_stop`."""
        if lib.sio_soft_record(self._vcpu).exit_reason != lib.KVM_EXIT_DEBUG:
            return None
        debug = self._vcpu.debug
        if debug.stop == lib.SIO_SOFT_WATCH and debug.watch_hit < len(plan.watches):
            return DebugStop("watch", plan.watches[debug.watch_hit])
        if debug.stop == lib.SIO_SOFT_BREAKPOINT:
            return DebugStop("hardware" if self.linear_pc in plan.hardware else "breakpoint")
        return DebugStop("step")

    def translate(self, linear: int) -> int | None:
        """See `Vcpu.translate`."""
        registers = self.registers.all()
        if self._ram is None:
            return None
        return walk(self._ram, linear, registers["cr0"], registers["cr3"], registers["cr4"])

    @property
    def exit(self) -> Exit:
        """See `Vcpu.exit`. The worker's pointer is of another address space."""
        return decode(lib.sio_soft_record(self._vcpu))

    def dump(self) -> str:
        """See `Worker.dump`."""
        return "\n".join(f"{name:>6}={value:08x}" for name, value in self.registers.all().items())

    def _broken(self) -> str:
        told = {
            errno.ENOTRECOVERABLE: "its worker was killed while it executed the guest: none can resume that",
            errno.ENOENT: f"Unicorn cannot be loaded: {HINT}",
            errno.EPROTO: f"this Unicorn is not of version 2.1: {HINT}",
        }
        return told.get(self.view.detail, f"Unicorn: {os.strerror(self.view.detail)}")


class SoftHypervisor(SoftMachine):
    """A `Hypervisor`: software vCPUs."""

    def vcpu(
        self, index: int, fabric: Fabric, doorbells: Mapping[int, int], event: int, cpu: int | None
    ) -> SoftWorker:
        """See `Hypervisor.vcpu`."""
        return SoftWorker(self.record, fabric, self.told(index, fabric, doorbells, event), cpu, self.memory)

    def map_memory(self, span: MmioRange, buffer: Any, *, readonly: bool) -> None:
        """See `Hypervisor.map_memory`."""
        raise MachineError(
            "the software CPU has no memory but its RAM", "use a host with /dev/kvm, or a device there"
        )

    def coalesced(self) -> Any:
        """See `Hypervisor.coalesced`."""
        raise MachineError("the software CPU has no coalesced ring", "use posted=True")
