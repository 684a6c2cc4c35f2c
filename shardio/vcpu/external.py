"""vCPUs that the user's own processes run: the dispatcher's side of a port.

Facts. Such a process is not ours: it is neither spawned, kicked nor killed here, and may not be our child. It
says in the port's memory which process it is, at its first access.

Consequences. The supervisor looks for that word now and then, and holds a pidfd of the process from then on,
or at once where it is told the pid. When the process dies, the access that it had in flight is finished in
its place, and the port is free for another.
"""

from __future__ import annotations

import os
from typing import Any

from shardio._core import lib
from shardio.errors import MachineError, VcpuError
from shardio.fabric import Fabric
from shardio.fabric.port_record import PortRecord
from shardio.fabric.statistics import copied
from shardio.processes import cpu_time_ns
from shardio.vcpu.interface import ExitCounts, Vcpu, VcpuState, VcpuStatistics
from shardio.vcpu.registers import NoRegisters, Registers


class ExternalVcpu(Vcpu):
    """The vCPU of one port. `record`: what it shares with the process that uses it."""

    def __init__(self, index: int, fabric: Fabric) -> None:
        self.index = index
        self.record = PortRecord.create(fabric, index)
        self._view: Any = self.record.view
        self._fabric = fabric
        self._segment: Any = fabric.view
        self._spawns = 0
        self._told_pid = 0
        self._stopped = False

    @property
    def client(self) -> Any:
        """See `Vcpu.client`."""
        return self.record.client

    @property
    def state(self) -> VcpuState:
        """RUNNING while a process uses the port, NEW before and between; STOPPED at the end."""
        if self._stopped:
            return VcpuState.STOPPED
        free = lib.sio_port_user(self._view) == lib.SIO_PORT_FREE
        return VcpuState.NEW if free else VcpuState.RUNNING

    def watch(self, pid: int) -> None:
        """Process `pid` runs this vCPU, or will. Raises `MachineError` where there is no such process."""
        try:
            self._hold(pid, os.pidfd_open(pid))
        except OSError as error:
            raise MachineError(
                f"process {pid} cannot be watched: {error.strerror}", "start it first"
            ) from None

    def adopt(self) -> bool:
        """See `Vcpu.adopt`: the process that has opened the port by itself."""
        user = lib.sio_port_user(self._view)
        if user in (lib.SIO_PORT_FREE, lib.SIO_PORT_FINISHING, self.pid, os.getpid()):
            return False
        try:
            fd = os.pidfd_open(user)
        except OSError:  # it has died before anybody looked
            self._settle_for(user)
            return False
        self._hold(user, fd)
        return True

    def _hold(self, pid: int, fd: int) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.pid, self.pidfd = pid, fd
        self._spawns += 1

    def reap(self) -> int | None:
        """Let go of a process that has died. Its exit status is its parent's to collect."""
        if self.pidfd < 0:
            return None
        os.close(self.pidfd)
        self._told_pid, self.pid, self.pidfd = self.pid, 0, -1
        return 0

    def resumable(self) -> bool:
        """See `Vcpu.resumable`: the user starts another, or does not."""
        return False

    def settle(self) -> bool:
        """See `Vcpu.settle`."""
        user = lib.sio_port_user(self._view)
        return user != self._told_pid or self._settle_for(user)

    def _settle_for(self, user: int) -> bool:
        exchange = lib.sio_port_exchange
        if exchange(self._view, user, lib.SIO_PORT_FINISHING) != user:
            return True  # a new user is at it
        settled = bool(lib.sio_client_finish(self.client, self._segment))
        exchange(self._view, lib.SIO_PORT_FINISHING, lib.SIO_PORT_FREE if settled else user)
        return settled

    def spawn(self) -> None:
        """Refused: the user starts the process of an external vCPU."""
        raise VcpuError(self.index, "is external", "start a process of your own and give it the port")

    def command(self, command: int) -> None:
        """Stopping ends every wait of the port and every later access; nothing else can be commanded."""
        if command == lib.SIO_STOP:
            self._stopped = True
            lib.sio_port_stop(self._view, self._segment, self.index)

    def kick_again(self) -> None:
        """Nothing: a port's waits end by themselves."""

    def wait(self, state: VcpuState, timeout_ns: int) -> VcpuState:
        """See `Vcpu.wait`; it does not wait."""
        return self.state

    def kill(self) -> None:
        """Nothing: the process is the user's. It is watched no more."""
        self.reap()

    def describe_end(self) -> str:
        """See `Vcpu.describe_end`."""
        return "its process has ended"

    @property
    def registers(self) -> Registers:
        """See `Vcpu.registers`: the process that runs it has them, if anybody."""
        return NoRegisters(self.index)

    def statistics(self, elapsed_ns: int) -> VcpuStatistics:
        """See `Vcpu.statistics`. Exits and times are its process's own affair, and 0 here."""
        counters = self._fabric.vcpu_counters(self.index)
        own = {"string_exits": 0, "interrupted": 0, "running_ns": 0, "waiting_ns": 0}
        own |= {"cpu_ns": cpu_time_ns(self.pid), "guest_ns": 0}
        return copied(
            VcpuStatistics, counters, state=self.state, exits=ExitCounts({}), repairs=ExitCounts({}),
            spawns=self._spawns, pid=self.pid, **own,
        )  # fmt: skip

    def close(self) -> None:
        """See `Vcpu.close`."""
        self.reap()
        self.record.close()
        self._segment = None
