"""KVM: `Kvm` opens /dev/kvm, `Vm` is a machine, `Vcpu` a processor of it, over <linux/kvm.h>.

All of it is control plane and must be used by the process that creates the VM: KVM binds a VM to one address
space and answers EIO to others. The data path (KVM_RUN, exits, rings) is in the vCPU workers.
"""

from shardio.entry import BOOT_TABLES
from shardio.kvm.boot import set_entry
from shardio.kvm.cpuid import CpuidLeaf
from shardio.kvm.exits import Exit, Interrupted, IoExit, MmioExit, OtherExit, exit_name
from shardio.kvm.firmware import load_firmware
from shardio.kvm.kvm import Kvm
from shardio.kvm.routing import GsiRoute, IrqchipRoute, MsiRoute, default_routes
from shardio.kvm.vcpu import Vcpu
from shardio.kvm.vm import Vm

__all__ = [
    "BOOT_TABLES",
    "CpuidLeaf",
    "Exit",
    "GsiRoute",
    "Interrupted",
    "IoExit",
    "IrqchipRoute",
    "Kvm",
    "MmioExit",
    "MsiRoute",
    "OtherExit",
    "Vcpu",
    "Vm",
    "default_routes",
    "exit_name",
    "load_firmware",
    "set_entry",
]
