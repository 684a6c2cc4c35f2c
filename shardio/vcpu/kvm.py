"""KVM as a hypervisor: the VM behind the vCPU workers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shardio._core import lib
from shardio.closing import Closing
from shardio.entry import MODES
from shardio.errors import MachineError
from shardio.fabric import Fabric
from shardio.interrupt.wires import IOAPIC_WIRES, PIC_WIRES
from shardio.kvm.boot import set_entry
from shardio.kvm.coalesced import KvmCoalesced
from shardio.kvm.cpuid import CpuidFilter
from shardio.kvm.doorbell import KvmDoorbells
from shardio.kvm.firmware import load_firmware
from shardio.kvm.interrupt import KvmBackend
from shardio.kvm.kvm import Kvm
from shardio.kvm.repairs import emulates
from shardio.kvm.split import SplitBackend
from shardio.kvm.vm import Vm
from shardio.memory import GuestMemory
from shardio.range import MmioRange, PioRange
from shardio.reserved import Reserved, reserved_by_kvm
from shardio.vcpu.kvm_worker import KvmWorker


class KvmHypervisor(Closing):
    """A `Hypervisor`: one VM of KVM with `vcpus` vCPUs over guest RAM. `irqchip`: interrupt controllers and
    PIT in the kernel; "split": the local APICs alone.

    `repairs`: execute instructions that KVM's emulator lacks; "auto": where guest code is emulated.
    `cpuid_filter`: changes what CPUID answers.

    Raises `KvmError` or `HostError` where KVM cannot be used, `MachineError` for too many vCPUs.
    """

    name = "kvm"
    coalesces = True
    modes: Sequence[str] = MODES
    board: Sequence[tuple[str, int | None]] = ()

    def __init__(
        self,
        memory: GuestMemory,
        vcpus: int,
        irqchip: bool | str = True,
        *,
        repairs: bool | str = "auto",
        cpuid_filter: CpuidFilter | None = None,
    ) -> None:
        self.memory = memory
        self.interrupts: KvmBackend | None = None
        self._irqchip = irqchip
        self._repairs = emulates() if repairs == "auto" else bool(repairs)
        self._coalesced: KvmCoalesced | None = None
        self._workers: list[KvmWorker] = []
        self._mapped: list[Reserved] = []
        with contextlib.ExitStack() as undo:
            kvm = undo.enter_context(Kvm())
            if vcpus > kvm.max_vcpus:
                raise MachineError(f"{vcpus} vCPUs", f"KVM here runs at most {kvm.max_vcpus}")
            self.vm: Vm = undo.enter_context(kvm.create_vm())
            self.vm.set_identity_map_addr()
            self.vm.set_tss_addr()
            if irqchip:
                self.interrupts = (SplitBackend if irqchip == "split" else KvmBackend)(self.vm)
                undo.callback(self.interrupts.close)
            if irqchip == "split":
                self.vm.create_split_irqchip()
            elif irqchip:
                self.vm.create_irqchip()
                self.vm.create_pit()
            self.doorbells = KvmDoorbells(self.vm)
            undo.callback(self.doorbells.close)
            self._ram = self.vm.set_memory(memory)
            for index in range(vcpus):
                self.vm.create_vcpu(index).set_cpuid(vcpus, cpuid_filter)
            self._cleanup = undo.pop_all()

    @property
    def has_irqchip(self) -> bool:
        """Whether local APICs are in the kernel: then the other vCPUs wait for INIT and SIPI."""
        return self.vm.has_irqchip

    def reserved(self, span: PioRange | MmioRange) -> Reserved | None:
        """See `Hypervisor.reserved`."""
        for mapped in self._mapped:
            if span.base in mapped.span or span.last in mapped.span:
                return mapped
        return reserved_by_kvm(span, self._irqchip)

    def map_memory(self, span: MmioRange, buffer: Any, *, readonly: bool) -> None:
        """See `Hypervisor.map_memory`."""
        self.vm.add_slot(int(span.base), buffer, readonly=readonly)
        self._mapped.append(Reserved(span, "memory that was mapped"))

    def vcpu(
        self, index: int, fabric: Fabric, doorbells: Mapping[int, int], event: int, cpu: int | None
    ) -> KvmWorker:
        """See `Hypervisor.vcpu`."""
        worker = KvmWorker(
            self.vm.vcpus[index], fabric, doorbells, event, cpu,
            vm_fd=self.vm.fd, memory=self.memory, repairs_in=self.memory if self._repairs else None,
        )
        self._workers.append(worker)
        return worker

    def supervised(
        self, watch: Callable[[int, Callable[[], None]], None], forget: Callable[[int], None]
    ) -> None:
        """See `Hypervisor.supervised`."""
        if self.interrupts is not None:
            self.interrupts.connect_to(watch, forget, self._workers[0].move_lines, self._follow)

    def _follow(self, lines: int) -> None:
        for worker in self._workers:
            worker.view.followed = lines

    def placed(self, answered: Callable[[PioRange | MmioRange], bool]) -> None:
        """See `Hypervisor.placed`: lines lead to the interrupt controllers that are devices now."""
        if not isinstance(self.interrupts, SplitBackend):
            return
        controllers = lib.SIO_WIRED_PIC if answered(PIC_WIRES) else 0
        controllers |= lib.SIO_WIRED_IOAPIC if answered(IOAPIC_WIRES) else 0
        self.interrupts.controllers = controllers
        for worker in self._workers:
            worker.view.wired = controllers

    def coalesced(self) -> KvmCoalesced:
        """See `Hypervisor.coalesced`."""
        if self._coalesced is None:
            self._coalesced = KvmCoalesced(self.vm)
            self._cleanup.callback(self._coalesced.close)
        return self._coalesced

    def set_entry(self, mode: str, entry: int, registers: Mapping[str, int] | None = None) -> None:
        """See `Hypervisor.set_entry`."""
        for vcpu in self.vm.vcpus:
            if vcpu.index == 0 or not self.has_irqchip:
                set_entry(vcpu, self.memory, mode, entry, registers)

    def ram_changed(self) -> None:
        """See `Hypervisor.ram_changed`."""
        for slot in self._ram:
            self.vm.remove_slot(slot)
        self._ram = self.vm.set_memory(self.memory)

    def load_firmware(self, path: Path) -> int:
        """See `Hypervisor.load_firmware`."""
        return load_firmware(self.vm, self.memory, path)

    def close(self) -> None:
        """See `Hypervisor.close`. Nobody may be inside KVM_RUN."""
        self._cleanup.close()


def kvm_obstacle() -> str | None:
    """Why KVM cannot be used here, in one line; None where it can."""
    from shardio.errors import ShardioError

    try:
        with Kvm():
            return None
    except ShardioError as error:
        return error.message
