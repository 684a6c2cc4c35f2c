"""`KvmCoalesced`: zones of KVM's coalesced ring, and the descriptor through which a shard maps it. Used by
the process that made the VM.

Facts. The ring is a page of every vCPU's mapping, next to its kvm_run page, which no shard may see.
Consequence. The descriptor given away is that of a vCPU made for it, which never runs: its kvm_run page is
nobody's. With an in-kernel irqchip it sits in reset, as a processor does that is never started.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from shardio.errors import MachineError
from shardio.kvm.gate import ioctl
from shardio.range import MmioRange, PioRange

if TYPE_CHECKING:
    from shardio.kvm.vm import Vm


class KvmCoalesced:
    """The coalesced ring of one VM. Close it before the VM."""

    def __init__(self, vm: Vm) -> None:
        """Raises `MachineError` where this KVM has no coalesced ring, `KvmError`."""
        self.page = vm.check_extension("KVM_CAP_COALESCED_MMIO")
        """Which page of a vCPU's mapping is the ring."""
        self._pio = bool(vm.check_extension("KVM_CAP_COALESCED_PIO"))
        if not self.page:
            raise MachineError("KVM here has no coalesced ring", "use posted=True")
        self._vm = vm
        self.fd = ioctl(vm.fd, "KVM_CREATE_VCPU", len(vm.vcpus))

    def add(self, span: PioRange | MmioRange) -> None:
        """Writes to `span` go into the ring. Raises `MachineError` where KVM takes no ports, `KvmError`."""
        pio = isinstance(span, PioRange)
        if pio and not self._pio:
            raise MachineError("KVM here has no coalesced ports", "use posted=True")
        self._vm.register_coalesced(int(span.base), span.size, pio)

    def remove(self, span: PioRange | MmioRange) -> None:
        """Writes to `span` are exits again."""
        self._vm.unregister_coalesced(int(span.base), span.size, isinstance(span, PioRange))

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
