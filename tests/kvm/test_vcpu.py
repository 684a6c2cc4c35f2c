"""`Vcpu`: state that is set and read back, CPUID's topology, kicks, and the run page."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import pytest

from shardio._core import ffi, lib
from shardio.errors import KvmError, MachineError
from shardio.kvm import Interrupted, IoExit, Kvm, Vcpu, exit_name
from shardio.kvm.cpuid import PV_FEATURES_KEPT
from shardio.kvm.gate import ioctl
from tests.guests.build import guest
from tests.kvm.tiny_vmm import tiny_vmm

pytestmark = pytest.mark.kvm


@pytest.fixture
def vcpu() -> Iterator[Vcpu]:
    with Kvm() as kvm, kvm.create_vm() as vm:
        vm.create_irqchip()
        yield vm.create_vcpu(0)


def test_registers_read_back_and_others_stay(vcpu):
    vcpu.set_regs(rax=0x1122334455667788, r15=7)
    vcpu.set_regs(rbx=9)
    regs = vcpu.get_regs()
    assert (regs["rax"], regs["rbx"], regs["r15"], regs["rip"]) == (0x1122334455667788, 9, 7, 0xFFF0)


def test_an_unknown_register_is_refused_by_name(vcpu):
    with pytest.raises(MachineError, match="no register named 'eax'; use one of rax, "):
        vcpu.set_regs(eax=1)


def test_segments_read_back(vcpu):
    sregs = vcpu.get_sregs()
    sregs.gs.base = 0x12345
    vcpu.set_sregs(sregs)
    assert vcpu.get_sregs().gs.base == 0x12345


def test_mp_state_reads_back(vcpu):
    vcpu.set_mp_state(lib.KVM_MP_STATE_HALTED)
    assert vcpu.get_mp_state() == lib.KVM_MP_STATE_HALTED


def test_aps_wait_for_their_sipi():
    with Kvm() as kvm, kvm.create_vm() as vm:
        vm.create_irqchip()
        states = [vm.create_vcpu(index).get_mp_state() for index in range(2)]
        assert states == [lib.KVM_MP_STATE_RUNNABLE, lib.KVM_MP_STATE_UNINITIALIZED]


def test_the_lapic_reads_back(vcpu):
    page = bytearray(vcpu.get_lapic())
    page[0x80] = 0x20
    vcpu.set_lapic(bytes(page))
    assert vcpu.get_lapic()[0x80] == 0x20


def test_without_an_irqchip_there_is_no_lapic():
    with Kvm() as kvm, kvm.create_vm() as vm, pytest.raises(KvmError, match=r"create_irqchip\(\) before"):
        vm.create_vcpu(0).get_lapic()


def test_pending_events_read_back(vcpu):
    events = vcpu.get_events()
    events.nmi.masked = 1
    vcpu.set_events(events)
    assert vcpu.get_events().nmi.masked == 1


def test_kvm_takes_the_cpuid_table(vcpu):
    vcpu.set_cpuid(4)
    table = ffi.new("struct kvm_cpuid2 *", {"entries": 256})
    table.nent = 256
    ioctl(vcpu.fd, "KVM_GET_CPUID2", table)
    leaves = {(entry.function, entry.index): entry for entry in table.entries[0 : table.nent]}
    assert leaves[0x4000_0001, 0].eax & ~PV_FEATURES_KEPT == 0
    assert leaves[0x0B, 1].ebx == 4


def test_a_kick_keeps_the_vcpu_out_until_it_is_taken_back():
    with tiny_vmm() as vmm:
        vmm.load(guest("hello"))
        vmm.vcpus[0].kick()
        assert vmm.vcpus[0].run() == Interrupted()
        vmm.vcpus[0].kick(False)
        assert isinstance(vmm.vcpus[0].run(), IoExit)


def test_the_run_page_is_where_the_exit_is():
    with tiny_vmm() as vmm:
        vmm.load(guest("hello"))
        vcpu = vmm.vcpus[0]
        vcpu.run()
        page = ffi.cast("struct kvm_run *", vcpu.run_page)
        assert page == vcpu.run_struct
        assert exit_name(page.exit_reason) == "KVM_EXIT_IO"
        assert vcpu.run_size >= mmap.PAGESIZE


def test_the_dump_names_registers_and_segments(vcpu):
    vcpu.set_regs(rdx=0xABCD)
    dump = vcpu.dump()
    assert "rdx=000000000000abcd" in dump
    assert "cs=f000 base=00000000ffff0000" in dump


def test_close_is_idempotent(vcpu):
    vcpu.close()
    vcpu.close()
    with pytest.raises(KvmError, match="EBADF"):
        vcpu.get_regs()


def test_an_exit_s_data_may_be_looked_at_after_the_vcpu_is_closed():
    with tiny_vmm() as vmm:
        vmm.load(guest("hello"))
        found = vmm.vcpus[0].run()
        before = bytes(found.data)
    assert bytes(found.data) == before


@pytest.mark.parametrize("use", ["run", "kick", "run_page", "run_struct", "coalesced_ring"])
def test_a_closed_vcpu_s_run_page_is_a_typed_error(vcpu, use):
    vcpu.close()
    with pytest.raises(KvmError, match="EBADF"):
        getattr(vcpu, use)()


def test_an_unknown_exit_reason_keeps_its_number():
    assert exit_name(9999) == "KVM_EXIT_9999"
