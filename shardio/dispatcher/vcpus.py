"""`Vcpus`: a dispatcher's vCPUs: ports for the user's own processes, or workers that a hypervisor runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from shardio.dispatcher.devices import ACCESS_TIMEOUT_S
from shardio.dispatcher.observed import Observed
from shardio.errors import MachineError
from shardio.vcpu import ExternalVcpu, Vcpu, VcpuState

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardio.fabric import Port
    from shardio.vcpu import Hypervisor


class Vcpus(Observed):
    """The part of `Dispatcher` that has the vCPUs. `vcpus`: how many."""

    vcpus: int
    start: Callable[[], None]
    _hypervisor: Hypervisor | None

    def __init__(self) -> None:
        super().__init__()
        self._ports: dict[int, Port] = {}

    def port(self, vcpu: int) -> Port:
        """The end of a vCPU, for the process that runs it: see `Port`. Starts the dispatcher.

        Raises `MachineError` for a vCPU that is not there or that the hypervisor runs, and what `start`
        raises.
        """
        from shardio.fabric import Port

        with self.life.turn():
            self.start()
            external = self._external(vcpu)
            if vcpu not in self._ports:
                bells = {shard.index: shard.doorbell for shard in self.supervisor.shards}
                self._ports[vcpu] = Port(self.fabric, vcpu, bells, record=external.record)
            return self._ports[vcpu]

    def watch(self, vcpu: int, pid: int) -> None:
        """Process `pid` runs this vCPU: when it dies, the access that it had in flight is settled at once,
        its port is free, and `VcpuEnded` is told. A process that uses its port is found without this within
        50 ms.

        Raises `MachineError` where there is no such process or vCPU.
        """
        with self.life.turn():
            self.start()
            external = self._external(vcpu)

            def watch() -> None:
                self.supervisor.forget_vcpu(external)
                external.watch(pid)
                self.supervisor.watch_vcpu(external)

            self.supervisor.call(watch)

    def _external(self, vcpu: int) -> ExternalVcpu:
        if not 0 <= vcpu < self.vcpus:
            raise MachineError(f"no vCPU {vcpu}", f"use 0 to {self.vcpus - 1}")
        found = self.supervisor.vcpus[vcpu]
        if not isinstance(found, ExternalVcpu):
            raise MachineError(f"vCPU {vcpu} is the hypervisor's", "use a Dispatcher without a hypervisor")
        return found

    def run_vcpus(self) -> None:
        """Let the hypervisor's vCPUs run."""
        supervisor = self._started()
        self._devices.open_holes()
        for vcpu in supervisor.vcpus:
            supervisor.call(lambda vcpu=vcpu: supervisor.start_vcpu(vcpu))  # type: ignore[misc]
            self._tell_trace(f"vCPU {vcpu.index}", f"runs, process {vcpu.pid}")
        supervisor.call(supervisor.keep_spare)
        self.life.clock_on()

    def command(self, command: int, state: VcpuState, timeout: float = ACCESS_TIMEOUT_S) -> None:
        """Command every vCPU (`lib.SIO_PAUSE` say) and wait until it is in `state`, has ended, or is held by
        a debugger: then it obeys when that lets it go on.

        Raises `MachineError` after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        vcpus = self._started().vcpus
        for vcpu in vcpus:
            vcpu.command(command)
        for vcpu in vcpus:
            while (now := vcpu.state) is not state and not vcpu.ended and not vcpu.held:
                if time.monotonic() > deadline:
                    raise MachineError(
                        f"vCPU {vcpu.index} is {now.name} and not {state.name} after {timeout} s",
                        "its access in flight does not end: see hang_deadline",
                    )
                vcpu.wait(now, 10_000_000)
                vcpu.kick_again()

    def _vcpu(self, index: int, bells: dict[int, int], event: int, cpu: int | None) -> Vcpu:
        if self._hypervisor is None:
            return ExternalVcpu(index, self._fabric)
        return self._hypervisor.vcpu(index, self._fabric, bells, event, cpu)

    def _close_ports(self) -> None:
        for port in self._ports.values():
            port.close()
