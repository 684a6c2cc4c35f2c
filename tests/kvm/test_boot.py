"""Entry states: a guest begins in each mode at the entry it was given, with the registers it was given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardio.entry import RESET_VECTOR
from shardio.errors import MachineError, MemoryAccessError
from shardio.kvm import BOOT_TABLES, IoExit, Kvm, MmioExit, set_entry
from shardio.memory import GuestMemory
from tests.kvm.tiny_vmm import tiny_vmm

pytestmark = pytest.mark.kvm

OUT_AL = b"\xe6\x10"
OUT_EAX = b"\xe7\x10"
LOAD_EAX_FROM_RBX = b"\x8b\x03"
LOAD_RAX_FROM_RBX = b"\x48\x8b\x03"


def first_exit(code: bytes, mode: str, entry: int, **registers: int) -> IoExit | MmioExit:
    """The exit that `code` at `entry` makes, with its data copied."""
    with tiny_vmm(memory=4 << 20) as vmm:
        vmm.memory.write(entry, code)
        set_entry(vmm.vcpus[0], vmm.memory, mode, entry, registers)
        found = vmm.vcpus[0].run()
        assert isinstance(found, IoExit | MmioExit)
        return replace(found, data=memoryview(bytes(found.data)))


@pytest.mark.parametrize("entry", [0, 0x1000, 0xFFF0, 0x1_0000, 0x8_1234, 0xF_FFF0])
def test_real_mode_begins_anywhere_below_1_mib(entry):
    found = first_exit(OUT_AL, "real", entry, rax=0x5A)
    assert found == IoExit(0x10, 1, 1, True, memoryview(b"\x5a"))


@pytest.mark.parametrize("entry", [0x1000, 0x20_0000])
def test_protected_mode_is_flat_and_32_bits_wide(entry):
    found = first_exit(OUT_EAX, "protected", entry, rax=0x12345678)
    assert found == IoExit(0x10, 4, 1, True, memoryview(b"\x78\x56\x34\x12"))


def test_protected_mode_reaches_the_top_of_4_gib():
    found = first_exit(LOAD_EAX_FROM_RBX, "protected", 0x1000, rbx=0xFFFF_FFF0)
    assert (found.address, found.size, found.is_write) == (0xFFFF_FFF0, 4, False)


@pytest.mark.parametrize("address", [0xD000_0000, 0xFFFF_FFF0, 0x2_4000_0000])
def test_long_mode_maps_what_lies_above_ram(address):
    found = first_exit(LOAD_RAX_FROM_RBX, "long", 0x1000, rbx=address)
    assert (found.address, found.size, found.is_write) == (address, 8, False)


def test_long_mode_reads_ram_above_4_gib():
    with tiny_vmm(memory=4 << 30) as vmm:
        vmm.memory.write(0x1_0000_0000, (0xCAFE).to_bytes(8, "little"))
        vmm.memory.write(0x1000, LOAD_RAX_FROM_RBX + OUT_EAX)
        set_entry(vmm.vcpus[0], vmm.memory, "long", 0x1000, {"rbx": 0x1_0000_0000})
        found = vmm.vcpus[0].run()
        assert isinstance(found, IoExit)
        assert bytes(found.data) == b"\xfe\xca\0\0"


def test_the_stack_ends_where_the_boot_tables_begin():
    with tiny_vmm() as vmm:
        set_entry(vmm.vcpus[0], vmm.memory, "protected", 0x1000)
        assert vmm.vcpus[0].get_regs()["rsp"] == BOOT_TABLES


def test_the_gdt_in_ram_reloads_the_same_segments():
    reload = b"\xb8\x10\0\0\0\x8e\xd8\xea\x0e\x10\0\0\x08\0" + OUT_AL
    found = first_exit(reload, "protected", 0x1000)
    assert found == IoExit(0x10, 1, 1, True, memoryview(b"\x10"))


def test_the_reset_vector_is_the_processor_s_own():
    with Kvm() as kvm, GuestMemory(1 << 20) as memory, kvm.create_vm() as vm:
        vcpu = vm.create_vcpu(0)
        set_entry(vcpu, memory, "real", RESET_VECTOR)
        cs, rip = vcpu.get_sregs().cs, vcpu.get_regs()["rip"]
        assert (cs.base, cs.selector, rip) == (0xFFFF_0000, 0xF000, 0xFFF0)


@pytest.mark.parametrize(
    ("mode", "entry", "said"),
    [
        ("real", 0x10_0000, "below 0x100000"),
        ("real", -1, "below 0x100000"),
        ("protected", 1 << 32, "below 4 GiB"),
        ("long", 512 << 30, "below 512 GiB"),
        ("virtual", 0, "use one of real, protected, long"),
    ],
)
def test_an_impossible_entry_is_refused(mode, entry, said):
    with tiny_vmm() as vmm, pytest.raises(MachineError, match=said):
        set_entry(vmm.vcpus[0], vmm.memory, mode, entry)


def test_ram_that_ends_below_the_boot_tables_is_refused():
    with tiny_vmm(memory=0x9_0000) as vmm, pytest.raises(MemoryAccessError):
        set_entry(vmm.vcpus[0], vmm.memory, "protected", 0x1000)


def test_without_an_irqchip_each_vcpu_begins_at_its_own_entry():
    with tiny_vmm(vcpus=2, irqchip=False) as vmm:
        vmm.memory.write(0x1000, OUT_AL)
        for number, vcpu in enumerate(vmm.vcpus):
            set_entry(vcpu, vmm.memory, "real", 0x1000, {"rax": number + 1})
        found = [vcpu.run() for vcpu in vmm.vcpus]
        assert [bytes(each.data) for each in found] == [b"\x01", b"\x02"]
