"""A virtual machine of KVM: its memory slots, interrupt controller, doorbells and vCPUs.

Every ioctl must be made by the process that created the VM (see `gate`). A `Vm` keeps what the kernel points
at alive: the mappings behind its memory slots live at least until `close()`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from shardio._core import ffi, lib
from shardio.closing import Closing
from shardio.errors import MachineError
from shardio.kvm.gate import capability, ioctl
from shardio.kvm.routing import GsiRoute, routing_table
from shardio.kvm.vcpu import Vcpu
from shardio.kvm.x86_vm import X86Vm
from shardio.memory import GuestMemory

if TYPE_CHECKING:
    from shardio.kvm.kvm import Kvm

SPLIT_PINS = 255
"""GSIs of a VM with a split irqchip whose level messages the kernel looks for."""


class Vm(X86Vm, Closing):
    """KVM_CREATE_VM's descriptor; made by `Kvm.create_vm()`. Methods raise `KvmError` naming their ioctl."""

    def __init__(self, kvm: Kvm, fd: int) -> None:
        self._fd = fd
        self._kvm = kvm
        self._slots: dict[int, Any] = {}
        self._vcpus: list[Vcpu] = []
        self.has_irqchip = False

    @property
    def fd(self) -> int:
        """The VM descriptor, -1 once closed."""
        return self._fd

    @property
    def vcpus(self) -> tuple[Vcpu, ...]:
        """The vCPUs made so far, in creation order."""
        return tuple(self._vcpus)

    def check_extension(self, name: str) -> int:
        """KVM_CHECK_EXTENSION on the VM: the value of `name` ("KVM_CAP_..."), 0 where it is missing."""
        return capability(self._fd, name)

    # --- memory ---

    def set_memory(self, memory: GuestMemory) -> tuple[int, ...]:
        """Gives the guest all regions of `memory`, one slot each; returns the slots.

        The mapping stays until the VM is closed, even where `memory` is closed first.
        """
        return tuple(
            self.add_slot(region.guest_address, memory.view(region.guest_address, region.size))
            for region in memory.regions
        )

    def add_slot(self, guest_address: int, buffer: Any, *, readonly: bool = False) -> int:
        """KVM_SET_USER_MEMORY_REGION: `buffer` (whole pages, aligned) is guest memory from `guest_address`.

        With `readonly` (KVM_CAP_READONLY_MEM) guest writes leave as MMIO exits. The buffer is held until
        `remove_slot()` or `close()`. Returns the slot's number.
        """
        mapping = ffi.from_buffer(buffer)
        slot = next(number for number in range(len(self._slots) + 1) if number not in self._slots)
        self._set_region(slot, guest_address, mapping, len(mapping), lib.KVM_MEM_READONLY if readonly else 0)
        self._slots[slot] = (guest_address, mapping)
        return slot

    def remove_slot(self, slot: int) -> None:
        """Takes slot `slot` away from the guest and lets go of its buffer."""
        guest_address, mapping = self._slots[slot]
        self._set_region(slot, guest_address, mapping, 0, 0)
        ffi.release(self._slots.pop(slot)[1])

    def _set_region(self, slot: int, guest_address: int, mapping: Any, size: int, flags: int) -> None:
        region = ffi.new("struct kvm_userspace_memory_region *")
        region.slot, region.flags = slot, flags
        region.guest_phys_addr, region.memory_size = guest_address, size
        region.userspace_addr = int(ffi.cast("uintptr_t", mapping))
        ioctl(self._fd, "KVM_SET_USER_MEMORY_REGION", region)

    # --- vCPUs ---

    def create_vcpu(self, index: int) -> Vcpu:
        """KVM_CREATE_VCPU: vCPU `index`, which is its APIC id on x86-64, with its run page mapped."""
        vcpu = Vcpu(index, ioctl(self._fd, "KVM_CREATE_VCPU", index), self._kvm)
        self._vcpus.append(vcpu)
        return vcpu

    def enable_cap(self, name: str, *arguments: int) -> None:
        """KVM_ENABLE_CAP of capability `name` ("KVM_CAP_...") on the VM.

        Raises `MachineError` for a capability that is not known or that this KVM has not.
        """
        if not self.check_extension(name):
            raise MachineError(f"no {name}", "use a newer kernel, or one of the names in <linux/kvm.h>")
        request = ffi.new("struct kvm_enable_cap *")
        request.cap = getattr(lib, name)
        request.args[0 : len(arguments)] = arguments
        ioctl(self._fd, "KVM_ENABLE_CAP", request)

    # --- interrupts ---

    def create_irqchip(self) -> None:
        """KVM_CREATE_IRQCHIP: the in-kernel interrupt controller (x86-64: PICs, IOAPIC and LAPICs).

        To be called before `create_vcpu()`; with it, APs wait for INIT/SIPI and HLT stays in the kernel.
        """
        ioctl(self._fd, "KVM_CREATE_IRQCHIP")
        self.has_irqchip = True

    def create_split_irqchip(self, pins: int = SPLIT_PINS) -> None:
        """KVM_CAP_SPLIT_IRQCHIP: local APICs in the kernel, PICs and an IOAPIC left to devices.

        To be called before `create_vcpu()`. Only messages can be raised: there are no lines in the kernel.
        It looks for level messages in the routes of GSIs below `pins` (at most 255: the kernel keeps 8 bits
        of it): their EOIs leave the guest.
        """
        self.enable_cap("KVM_CAP_SPLIT_IRQCHIP", pins)
        self.has_irqchip = True

    def irq_line(self, gsi: int, level: bool | int) -> None:
        """KVM_IRQ_LINE: sets the level of `gsi`; an edge is a 1 followed by a 0."""
        line = ffi.new("struct kvm_irq_level *")
        line.irq, line.level = gsi, int(level)
        ioctl(self._fd, "KVM_IRQ_LINE", line)

    def irqfd(self, fd: int, gsi: int, deassign: bool = False, resample_fd: int | None = None) -> None:
        """KVM_IRQFD: every write to eventfd `fd` raises `gsi`, without leaving the kernel.

        With `resample_fd` the line is level: it stays asserted until the guest's EOI, which signals that
        eventfd. `deassign` detaches `fd` from `gsi`.
        """
        request = ffi.new("struct kvm_irqfd *")
        request.fd, request.gsi = fd, gsi
        request.flags = lib.KVM_IRQFD_FLAG_DEASSIGN if deassign else 0
        if resample_fd is not None and not deassign:
            request.flags |= lib.KVM_IRQFD_FLAG_RESAMPLE
            request.resamplefd = resample_fd
        ioctl(self._fd, "KVM_IRQFD", request)

    def set_gsi_routing(self, routes: Iterable[GsiRoute]) -> None:
        """KVM_SET_GSI_ROUTING: replaces the whole table; start from `routing.default_routes()`."""
        ioctl(self._fd, "KVM_SET_GSI_ROUTING", routing_table(tuple(routes)))

    def signal_msi(self, address: int, data: int, devid: int | None = None) -> bool:
        """KVM_SIGNAL_MSI: sends a message; True where a vCPU took it, False where the guest blocks it."""
        message = ffi.new("struct kvm_msi *")
        message.address_lo, message.address_hi = address & 0xFFFF_FFFF, address >> 32
        message.data = data
        if devid is not None:
            message.flags, message.devid = lib.KVM_MSI_VALID_DEVID, devid
        return ioctl(self._fd, "KVM_SIGNAL_MSI", message) > 0

    # --- doorbells ---

    def ioeventfd(
        self, fd: int, addr: int, length: int, pio: bool, datamatch: int | None = None, deassign: bool = False
    ) -> None:
        """KVM_IOEVENTFD: a guest write of `length` bytes (0: any) at `addr` signals eventfd `fd`: no exit.

        `pio`: `addr` is a port. `datamatch`: only writes of that value. `deassign` detaches what the same
        arguments attached.
        """
        request = ffi.new("struct kvm_ioeventfd *")
        request.addr, request.len, request.fd = addr, length, fd
        request.flags = lib.KVM_IOEVENTFD_FLAG_PIO if pio else 0
        if datamatch is not None:
            request.flags |= lib.KVM_IOEVENTFD_FLAG_DATAMATCH
            request.datamatch = datamatch
        if deassign:
            request.flags |= lib.KVM_IOEVENTFD_FLAG_DEASSIGN
        ioctl(self._fd, "KVM_IOEVENTFD", request)

    def register_coalesced(self, addr: int, size: int, pio: bool) -> None:
        """KVM_REGISTER_COALESCED_MMIO: writes to `[addr, addr + size)` queue in the VM's ring: no exit."""
        ioctl(self._fd, "KVM_REGISTER_COALESCED_MMIO", _zone(addr, size, pio))

    def unregister_coalesced(self, addr: int, size: int, pio: bool) -> None:
        """KVM_UNREGISTER_COALESCED_MMIO: takes back the zones inside `[addr, addr + size)`."""
        ioctl(self._fd, "KVM_UNREGISTER_COALESCED_MMIO", _zone(addr, size, pio))

    # --- life ---

    def close(self) -> None:
        """Closes the vCPUs and the VM and lets go of the guest's memory. Idempotent.

        Nobody may be inside KVM_RUN or touch a run page any more.
        """
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        for vcpu in self._vcpus:
            vcpu.close()
        os.close(fd)
        for _, mapping in self._slots.values():
            ffi.release(mapping)
        self._slots.clear()


def _zone(addr: int, size: int, pio: bool) -> Any:
    zone = ffi.new("struct kvm_coalesced_mmio_zone *")
    zone.addr, zone.size, zone.pio = addr, size, int(pio)
    return zone
