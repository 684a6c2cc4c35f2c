"""`Vm`: memory slots, interrupts by line, eventfd and message, doorbells; each ioctl's error has its hint."""

from __future__ import annotations

import mmap
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from shardio._core import ffi
from shardio.errors import KvmError
from shardio.kvm import IrqchipRoute, Kvm, MsiRoute, Vcpu, Vm, default_routes
from shardio.memory import GuestMemory
from tests.guests.build import guest
from tests.kvm.tiny_vmm import tiny_vmm

pytestmark = pytest.mark.kvm

MMIO = 0xD000_0000


@pytest.fixture
def vm() -> Iterator[Vm]:
    with Kvm() as kvm, kvm.create_vm() as made:
        yield made


@pytest.fixture
def eventfd() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


def test_each_region_is_a_slot(vm):
    with GuestMemory(4 << 30) as memory:
        assert vm.set_memory(memory) == (0, 1)


def test_a_slot_over_another_is_refused_with_the_hint(vm):
    with GuestMemory(1 << 20) as memory:
        vm.set_memory(memory)
        with pytest.raises(KvmError, match=r"EEXIST.*place it elsewhere"):
            vm.add_slot(0x1000, mmap.mmap(-1, 4096))


def test_a_removed_slot_s_number_and_place_are_free_again(vm):
    first = vm.add_slot(0x1000, mmap.mmap(-1, 4096))
    vm.remove_slot(first)
    assert vm.add_slot(0x1000, mmap.mmap(-1, 4096)) == first


def test_the_mapping_lives_as_long_as_the_vm():
    with tiny_vmm() as vmm:
        vmm.load(guest("hello"))
        vmm.memory.close()
        vmm.run()
        assert vmm.exit_status == 0


def test_a_write_to_a_read_only_slot_is_an_exit_and_changes_nothing():
    with tiny_vmm() as vmm:
        rom = mmap.mmap(-1, 4096)
        rom[:4] = b"\x11\x22\x33\x44"
        vmm.vm.add_slot(MMIO, rom, readonly=True)
        vmm.load(guest("mmio_loop", COUNT=1))
        vmm.run()
        assert vmm.exits[0] == ("mmio", True, MMIO, 4, b"\x01\0\0\0")
        assert rom[:4] == b"\x11\x22\x33\x44"


def test_a_read_from_a_read_only_slot_is_no_exit():
    with tiny_vmm() as vmm:
        rom = mmap.mmap(-1, 4096)
        rom[:4] = b"\x11\x22\x33\x44"
        vmm.vm.add_slot(MMIO, rom, readonly=True)
        vmm.load(guest("mmio_loop", COUNT=1, WRITE=0))
        vmm.run()
        assert [found[0] for found in vmm.exits] == ["pio"]
        assert vmm.result(4) == 0x44332211


def test_a_vcpu_index_can_be_used_once(vm):
    vm.create_vcpu(0)
    with pytest.raises(KvmError, match=r"KVM_CREATE_VCPU failed with EEXIST.*another index"):
        vm.create_vcpu(0)
    assert [vcpu.index for vcpu in vm.vcpus] == [0]


def test_the_irqchip_is_made_once(vm):
    vm.create_irqchip()
    with pytest.raises(KvmError, match=r"KVM_CREATE_IRQCHIP failed with EEXIST.*create it once"):
        vm.create_irqchip()


def test_a_split_irqchip_takes_messages_and_has_no_pit(vm):
    vm.create_split_irqchip()
    vcpu = vm.create_vcpu(0)
    enable_lapic(vcpu)
    assert vm.signal_msi(0xFEE0_0000, 0x41)
    assert pending(vcpu, 0x41)
    with pytest.raises(KvmError, match="KVM_CREATE_PIT2"):
        vm.create_pit()


def test_another_process_may_not_use_the_vm(vm):
    code = f"from shardio.kvm.gate import ioctl; ioctl({vm.fd}, 'KVM_CREATE_VCPU', 0)"
    done = subprocess.run([sys.executable, "-c", code], pass_fds=[vm.fd], capture_output=True, text=True)
    assert "KVM_CREATE_VCPU failed with EIO" in done.stderr
    assert "issue KVM ioctls from the process that created it" in done.stderr


def test_the_pit_needs_the_irqchip(vm):
    with pytest.raises(KvmError, match=r"KVM_CREATE_PIT2 .*create_irqchip\(\) first"):
        vm.create_pit()


def test_the_pit_is_made_after_the_irqchip_and_once(vm):
    vm.create_irqchip()
    vm.create_pit()
    with pytest.raises(KvmError, match=r"KVM_CREATE_PIT2 failed with EEXIST.*create it once"):
        vm.create_pit()


def test_the_pages_for_vmx_are_accepted(vm):
    vm.set_identity_map_addr()
    vm.set_tss_addr()

    assert vm.create_vcpu(0).index == 0


def test_irq_line_needs_the_irqchip(vm):
    with pytest.raises(KvmError, match=r"KVM_IRQ_LINE failed with ENXIO.*create_irqchip\(\) first"):
        vm.irq_line(4, 1)


def test_irqfd_needs_the_irqchip(vm, eventfd):
    with pytest.raises(KvmError, match=r"KVM_IRQFD failed with EINVAL.*in-kernel irqchip"):
        vm.irqfd(eventfd, 4)


def test_an_eventfd_raises_its_line_until_it_is_detached(eventfd):
    with tiny_vmm() as vmm:
        vmm.vm.irqfd(eventfd, 4)
        with pytest.raises(KvmError, match=r"KVM_IRQFD failed with EBUSY.*attached already"):
            vmm.vm.irqfd(eventfd, 4)
        vmm.vm.irqfd(eventfd, 4, deassign=True)
        vmm.vm.irqfd(eventfd, 4)


def test_a_resampled_line_takes_both_eventfds(eventfd):
    resample = os.eventfd(0)
    with tiny_vmm() as vmm:
        vmm.vm.irqfd(eventfd, 5, resample_fd=resample)
        with pytest.raises(KvmError, match=r"KVM_IRQFD failed with EBUSY"):
            vmm.vm.irqfd(eventfd, 5)
        vmm.vm.irqfd(eventfd, 5, deassign=True)
    os.close(resample)


def test_a_message_reaches_the_local_apic():
    with tiny_vmm() as vmm:
        enable_lapic(vmm.vcpus[0])
        assert vmm.vm.signal_msi(0xFEE0_0000, 0x41)
        assert pending(vmm.vcpus[0], 0x41)


def test_a_routed_gsi_becomes_its_message(eventfd):
    with tiny_vmm() as vmm:
        enable_lapic(vmm.vcpus[0])
        vmm.vm.set_gsi_routing([*default_routes(), MsiRoute(24, 0xFEE0_0000, 0x52)])
        vmm.vm.irq_line(24, 1)
        assert pending(vmm.vcpus[0], 0x52)


def test_a_route_to_a_pin_that_does_not_exist_is_refused():
    with tiny_vmm() as vmm, pytest.raises(KvmError, match="KVM_SET_GSI_ROUTING failed with EINVAL"):
        vmm.vm.set_gsi_routing([IrqchipRoute(0, 2, 99)])


def test_with_an_empty_routing_table_a_gsi_goes_nowhere():
    with tiny_vmm() as vmm:
        enable_lapic(vmm.vcpus[0])
        vmm.vm.set_gsi_routing([MsiRoute(24, 0xFEE0_0000, 0x52)])
        vmm.vm.set_gsi_routing([])
        with suppress(KvmError):
            vmm.vm.irq_line(24, 1)
        assert not pending(vmm.vcpus[0], 0x52)


def rung(fd: int) -> int:
    """How often the eventfd was written since it was last read."""
    ready, _, _ = select.select([fd], [], [], 0)
    return os.eventfd_read(fd) if ready else 0


@pytest.mark.parametrize(("name", "pio", "address"), [("pio_loop", True, 0x100), ("mmio_loop", False, MMIO)])
def test_a_doorbell_is_counted_and_never_an_exit(eventfd, name, pio, address):
    with tiny_vmm() as vmm:
        vmm.vm.ioeventfd(eventfd, address, 4, pio)
        vmm.load(guest(name, COUNT=9, WIDTH=4))
        vmm.run()
        assert rung(eventfd) == 9
        assert len(vmm.exits) == 1


@pytest.mark.parametrize(("name", "pio", "address"), [("pio_loop", True, 0x100), ("mmio_loop", False, MMIO)])
def test_a_read_of_a_doorbell_is_an_exit(eventfd, name, pio, address):
    with tiny_vmm() as vmm:
        vmm.vm.ioeventfd(eventfd, address, 4, pio)
        vmm.load(guest(name, COUNT=9, WIDTH=4, WRITE=0))
        vmm.run()
        assert rung(eventfd) == 0
        assert len(vmm.exits) == 10


def test_datamatch_takes_its_value_alone(eventfd):
    with tiny_vmm() as vmm:
        vmm.vm.ioeventfd(eventfd, 0x100, 4, True, datamatch=2)
        vmm.load(guest("pio_loop", COUNT=3, WIDTH=4))
        vmm.run()
        assert rung(eventfd) == 1
        assert [data[0] for _, _, port, _, data in vmm.exits if port == 0x100] == [3, 1]


def test_a_detached_doorbell_is_an_exit_again(eventfd):
    with tiny_vmm() as vmm:
        vmm.vm.ioeventfd(eventfd, 0x100, 1, True, datamatch=1)
        vmm.vm.ioeventfd(eventfd, 0x100, 1, True, datamatch=1, deassign=True)
        vmm.load(guest("pio_loop", COUNT=1))
        vmm.run()
        assert rung(eventfd) == 0
        assert len(vmm.exits) == 2


def test_a_doorbell_that_is_not_attached_cannot_be_detached(vm, eventfd):
    with pytest.raises(KvmError, match=r"KVM_IOEVENTFD failed with ENOENT.*arguments of the attach"):
        vm.ioeventfd(eventfd, 0x100, 1, True, deassign=True)


@pytest.mark.parametrize(("name", "pio", "address"), [("pio_loop", True, 0x100), ("mmio_loop", False, MMIO)])
def test_writes_to_a_coalesced_zone_are_no_exits(name, pio, address):
    with tiny_vmm() as vmm:
        vmm.vm.register_coalesced(address, 4, pio)
        vmm.load(guest(name, COUNT=9, WIDTH=4))
        vmm.run()
        assert len(vmm.exits) == 1
        ring = ffi.cast("struct kvm_coalesced_mmio_ring *", vmm.vcpus[0].coalesced_ring)
        queued = ring.coalesced_mmio[0 : ring.last]
        assert [(entry.phys_addr, entry.len, entry.pio) for entry in queued] == [(address, 4, int(pio))] * 9
        assert [entry.data[0] for entry in queued] == list(range(9, 0, -1))


@pytest.mark.parametrize(("name", "pio", "address"), [("pio_loop", True, 0x100), ("mmio_loop", False, MMIO)])
def test_an_unregistered_zone_s_writes_are_exits(name, pio, address):
    with tiny_vmm() as vmm:
        vmm.vm.register_coalesced(address, 4, pio)
        vmm.vm.unregister_coalesced(address, 4, pio)
        vmm.load(guest(name, COUNT=9))
        vmm.run()
        assert len(vmm.exits) == 10


def enable_lapic(vcpu: Vcpu) -> None:
    """A local APIC takes messages once it is enabled: SVR (0xF0) bit 8."""
    page = bytearray(vcpu.get_lapic())
    page[0xF0:0xF4] = (0x1FF).to_bytes(4, "little")
    vcpu.set_lapic(bytes(page))


def pending(vcpu: Vcpu, vector: int) -> bool:
    """Whether the vCPU's local APIC holds `vector` in its IRR (0x200, 32 vectors every 16 bytes)."""
    page = vcpu.get_lapic()
    word = page[0x200 + vector // 32 * 16 :][:4]
    return bool(int.from_bytes(word, "little") >> vector % 32 & 1)
