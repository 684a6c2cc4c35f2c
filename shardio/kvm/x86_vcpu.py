"""The x86-64 part of a `Vcpu`: registers, local APIC, pending events and CPUID."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardio._core import ffi
from shardio.entry import REGISTERS
from shardio.errors import UnknownRegister
from shardio.kvm import cpuid
from shardio.kvm.gate import ioctl
from shardio.kvm.kept import Kept, plain

if TYPE_CHECKING:
    from shardio.kvm.kvm import Kvm

SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
CONTROLS = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")


class X86Vcpu:
    """Mixin of `Vcpu`: state ioctls that exist on x86-64 alone. A struct is a `Kept`, whose fields have
    KVM's names.
    """

    index: int
    _fd: int
    _kvm: Kvm

    def get_regs(self) -> dict[str, int]:
        """KVM_GET_REGS: the general registers, `rip` and `rflags` by name, 64 bits each."""
        regs = ffi.new("struct kvm_regs *")
        ioctl(self._fd, "KVM_GET_REGS", regs)
        return {name: getattr(regs, name) for name in REGISTERS}

    def set_regs(self, **values: int) -> None:
        """KVM_SET_REGS: sets the registers given by name and keeps the others.

        Raises `UnknownRegister` for a register that does not exist.
        """
        unknown = [name for name in values if name not in REGISTERS]
        if unknown:
            raise UnknownRegister(unknown[0], REGISTERS)
        regs = ffi.new("struct kvm_regs *", self.get_regs() | values)
        ioctl(self._fd, "KVM_SET_REGS", regs)

    def get_sregs(self) -> Any:
        """KVM_GET_SREGS: segments, descriptor tables and control registers, a `struct kvm_sregs`."""
        sregs = ffi.new("struct kvm_sregs *")
        ioctl(self._fd, "KVM_GET_SREGS", sregs)
        return Kept(sregs)

    def set_sregs(self, sregs: Any) -> None:
        """KVM_SET_SREGS from what `get_sregs()` gave, altered, or a cffi `struct kvm_sregs *`."""
        ioctl(self._fd, "KVM_SET_SREGS", plain(sregs))

    def get_lapic(self) -> bytes:
        """KVM_GET_LAPIC: the 1 KiB register page of the in-kernel local APIC."""
        lapic = ffi.new("struct kvm_lapic_state *")
        ioctl(self._fd, "KVM_GET_LAPIC", lapic)
        return bytes(ffi.buffer(lapic.regs))

    def set_lapic(self, page: bytes) -> None:
        """KVM_SET_LAPIC from a page of `get_lapic()`."""
        lapic = ffi.new("struct kvm_lapic_state *")
        ffi.buffer(lapic.regs)[:] = page
        ioctl(self._fd, "KVM_SET_LAPIC", lapic)

    def get_events(self) -> Any:
        """KVM_GET_VCPU_EVENTS: pending exceptions and interrupts, a `struct kvm_vcpu_events`."""
        events = ffi.new("struct kvm_vcpu_events *")
        ioctl(self._fd, "KVM_GET_VCPU_EVENTS", events)
        return Kept(events)

    def set_events(self, events: Any) -> None:
        """KVM_SET_VCPU_EVENTS from what `get_events()` gave, altered, or a cffi struct of the kind."""
        ioctl(self._fd, "KVM_SET_VCPU_EVENTS", plain(events))

    def get_msr(self, index: int) -> int:
        """KVM_GET_MSRS of one register. Raises `UnknownRegister` where the vCPU does not have it."""
        cell = self._msr(index, 0)
        if ioctl(self._fd, "KVM_GET_MSRS", cell) != 1:
            raise UnknownRegister(index)
        return int(cell.entries[0].data)

    def set_msr(self, index: int, value: int) -> None:
        """KVM_SET_MSRS of one register. Raises `UnknownRegister` where it has no such register or value."""
        if ioctl(self._fd, "KVM_SET_MSRS", self._msr(index, value)) != 1:
            raise UnknownRegister(index)

    def _msr(self, index: int, value: int) -> Any:
        cell = ffi.new("struct kvm_msrs *", {"entries": 1})
        cell.nmsrs = 1
        cell.entries[0].index, cell.entries[0].data = index, value
        return cell

    def get_fpu(self) -> Any:
        """KVM_GET_FPU: x87 and SSE state, a `struct kvm_fpu`."""
        fpu = ffi.new("struct kvm_fpu *")
        ioctl(self._fd, "KVM_GET_FPU", fpu)
        return Kept(fpu)

    def set_fpu(self, fpu: Any) -> None:
        """KVM_SET_FPU from what `get_fpu()` gave, altered, or a cffi `struct kvm_fpu *`."""
        ioctl(self._fd, "KVM_SET_FPU", plain(fpu))

    def translate(self, linear: int) -> int | None:
        """KVM_TRANSLATE: the guest-physical address of a linear one, None where nothing is mapped there."""
        request = ffi.new("struct kvm_translation *")
        request.linear_address = linear
        ioctl(self._fd, "KVM_TRANSLATE", request)
        return int(request.physical_address) if request.valid else None

    def set_cpuid(self, vcpus: int = 1, cpuid_filter: cpuid.CpuidFilter | None = None) -> None:
        """KVM_SET_CPUID2: all that KVM supports here, as core `index` of one package of `vcpus` cores, each
        leaf as `cpuid_filter` changes it.
        """
        table = cpuid.for_vcpu(self._kvm.supported_cpuid(), self.index, vcpus)
        if cpuid_filter is not None:
            table = cpuid.filtered(table, self.index, cpuid_filter)
        ioctl(self._fd, "KVM_SET_CPUID2", table)

    def get_cpuid(self) -> tuple[cpuid.CpuidLeaf, ...]:
        """KVM_GET_CPUID2: what the guest's CPUID answers, as far as KVM answers it."""
        table = ffi.new("struct kvm_cpuid2 *", {"entries": cpuid.MOST_ENTRIES})
        table.nent = cpuid.MOST_ENTRIES
        ioctl(self._fd, "KVM_GET_CPUID2", table)
        names = cpuid.CpuidLeaf.__struct_fields__
        return tuple(
            cpuid.CpuidLeaf(*(getattr(entry, name) for name in names))
            for entry in table.entries[0 : table.nent]
        )

    def dump(self) -> str:
        """The registers as text of a few lines, for a report about a vCPU that cannot go on."""
        regs, sregs = self.get_regs(), self.get_sregs()
        names = list(REGISTERS)
        lines = [names[first : first + 4] for first in range(0, len(names), 4)]
        rows = [" ".join(f"{name:>6}={regs[name]:016x}" for name in line) for line in lines]
        rows += [
            f"{name:>6}={segment.selector:04x} base={segment.base:016x} limit={segment.limit:08x}"
            f" type={segment.type:x} s={segment.s} dpl={segment.dpl} p={segment.present}"
            f" db={segment.db} l={segment.l} g={segment.g}"
            for name, segment in ((name, getattr(sregs, name)) for name in SEGMENTS)
        ]
        rows += [
            f"{name:>6} base={table.base:016x} limit={table.limit:04x}"
            for name, table in (("gdt", sregs.gdt), ("idt", sregs.idt))
        ]
        rows.append(" ".join(f"{name}={getattr(sregs, name):x}" for name in CONTROLS))
        return "\n".join(rows)
