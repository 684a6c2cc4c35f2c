"""Software vCPUs: spawned workers that execute the guest by Unicorn (native/soft_worker.c).

A worker that dies inside an access, between two instructions or while it sleeps is replaced exactly; one that
dies while it executes guest code leaves memory that nobody can tell the state of: the vCPU ends as BROKEN.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Mapping
from typing import Any

from shardio._core import ffi, lib
from shardio.errors import MachineError, VcpuError
from shardio.fabric import Fabric
from shardio.fabric.port_record import set_up
from shardio.kvm.exits import Exit, decode
from shardio.memory import GuestMemory
from shardio.range import MmioRange
from shardio.soft.library import HINT
from shardio.soft.machine import SoftMachine
from shardio.soft.process import Start, start
from shardio.soft.record import Record
from shardio.vcpu.report import walk
from shardio.vcpu.soft_registers import SoftRegisters
from shardio.vcpu.worker import Worker

STILLBORN = 5
"""Workers that may die, one after the other, before they take their vCPU over."""


class SoftWorker(Worker):
    """The worker of one software vCPU of a machine's `record`; it is started with what it is `told`."""

    def __init__(self, record: Record, fabric: Fabric, told: Start, cpu: int | None) -> None:
        self._record = record
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

    def physical(self, memory: GuestMemory, linear: int) -> int | None:
        """See `Vcpu.physical`."""
        return walk(memory, self.registers.all(), linear)

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
        return SoftWorker(self.record, fabric, self.told(index, fabric, doorbells, event), cpu)

    def map_memory(self, span: MmioRange, buffer: Any, *, readonly: bool) -> None:
        """See `Hypervisor.map_memory`."""
        raise MachineError(
            "the software CPU has no memory but its RAM", "use a host with /dev/kvm, or a device there"
        )

    def coalesced(self) -> Any:
        """See `Hypervisor.coalesced`."""
        raise MachineError("the software CPU has no coalesced ring", "use posted=True")
