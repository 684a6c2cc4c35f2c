"""Which hypervisor runs a machine: KVM where it works, else the software CPU, or the one that was asked
for.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from shardio.errors import HostError, MachineError
from shardio.memory import GuestMemory
from shardio.vcpu.hypervisor import Hypervisor

if TYPE_CHECKING:
    from shardio.kvm.cpuid import CpuidFilter

CPUS: Final = ("auto", "kvm", "soft")


def check_cpu(cpu: str) -> None:
    """Raises `MachineError` for a kind of CPU that does not exist."""
    if cpu not in CPUS:
        raise MachineError(f"no cpu {cpu!r}", f"use one of {', '.join(CPUS)}")


def open_hypervisor(
    cpu: str,
    memory: GuestMemory,
    vcpus: int,
    irqchip: bool | str,
    *,
    repairs: bool | str = "auto",
    cpuid_filter: CpuidFilter | None = None,
) -> Hypervisor:
    """A hypervisor of the kind `cpu`. "auto" is what the environment variable SHARDIO_CPU says; without it,
    it takes KVM where that works, and otherwise says on standard error which CPU the machine runs on and why.
    `repairs`, `cpuid_filter`: see `KvmHypervisor`; the software CPU needs no repairs and takes no filter.

    Raises `HostError` where the kind cannot be used here, `KvmError`, `MachineError`.
    """
    if cpu == "auto":
        cpu = os.environ.get("SHARDIO_CPU", cpu)
    check_cpu(cpu)
    if cpu == "soft":
        if cpuid_filter is not None:
            raise MachineError("the software CPU's CPUID is its own", "leave out `cpuid`, or use KVM")
        return _soft(memory, vcpus, irqchip)
    from shardio.vcpu.kvm import KvmHypervisor

    try:
        return KvmHypervisor(memory, vcpus, irqchip, repairs=repairs, cpuid_filter=cpuid_filter)
    except HostError as obstacle:
        if cpu == "kvm" or cpuid_filter is not None:
            raise
        try:
            soft = _soft(memory, vcpus, irqchip)
        except HostError as missing:
            raise HostError(obstacle.message, f"{obstacle.hint}; or {missing.hint}") from None
        print(f"shardio: {obstacle.message}: running on the software CPU", file=sys.stderr)
        return soft


def _soft(memory: GuestMemory, vcpus: int, irqchip: bool | str) -> Hypervisor:
    from shardio.vcpu.soft import SoftHypervisor

    return SoftHypervisor(memory, vcpus, irqchip)
