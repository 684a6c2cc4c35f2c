"""vCPUs behind one interface, whatever runs them: KVM, software, or a process of the user's.

`interface` says what a vCPU is, `hypervisor` what runs vCPUs; `kvm`, `soft` and `external` are kinds of them;
`choice` picks the hypervisor of a machine. Nothing above imports a hypervisor by name.
"""

from shardio.vcpu.debug import DebugPlan, DebugStop, Watch
from shardio.vcpu.external import ExternalVcpu
from shardio.vcpu.hypervisor import Hypervisor
from shardio.vcpu.interface import ExitCounts, Vcpu, VcpuState, VcpuStatistics
from shardio.vcpu.registers import Registers, Segment, Table

__all__ = [
    "DebugPlan",
    "DebugStop",
    "ExitCounts",
    "ExternalVcpu",
    "Hypervisor",
    "Registers",
    "Segment",
    "Table",
    "Vcpu",
    "VcpuState",
    "VcpuStatistics",
    "Watch",
]
