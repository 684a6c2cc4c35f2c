"""What a VMM's author may set of the VM itself: CPUID, memory beside RAM, capabilities, the 8259s."""

from __future__ import annotations

import mmap
from typing import Any

import pytest

from shardio import KvmError, Machine, MachineError
from shardio._core import lib
from shardio.dispatcher import ExitInfo
from shardio.kvm import CpuidLeaf
from tests.e2e.devices import Recorder
from tests.e2e.support import MMIO, PATIENCE_S, add_exit_port, machine

pytestmark = pytest.mark.kvm

PV_FEATURES = 0x4000_0001
OUT_AL = b"\xe6\xf4"
CPUID_OF_PV_FEATURES = b"\x66\xb8" + PV_FEATURES.to_bytes(4, "little") + b"\x0f\xa2"
READ_MAPPED = b"\xa0" + MMIO.to_bytes(4, "little")
"""mov al, [MMIO], 32-bit code"""
WRITE_MAPPED = b"\xc6\x05" + MMIO.to_bytes(4, "little") + b"\x41"
"""mov byte [MMIO], 0x41"""


def run(vm: Machine, image: bytes, mode: str = "real") -> ExitInfo:
    vm.load(image, mode=mode)
    add_exit_port(vm)
    return vm.run(PATIENCE_S)


def test_a_guest_sees_the_paravirtual_features_that_work() -> None:
    with machine() as vm:
        ended = run(vm, CPUID_OF_PV_FEATURES + OUT_AL)
    assert ended.status is not None
    assert ended.status & ~0x09 == 0  # KVM's clocks alone: the others leave an SMP Linux waiting


def test_cpuid_is_what_the_author_makes_of_it() -> None:
    seen: set[int] = set()

    def cpuid(vcpu: int, leaf: CpuidLeaf) -> CpuidLeaf | None:
        seen.add(vcpu)
        changed = CpuidLeaf(leaf.function, leaf.index, 0x5A, leaf.ebx, leaf.ecx, leaf.edx)
        return changed if leaf.function == PV_FEATURES else None if leaf.function == 0x16 else leaf

    with machine(vcpus=2, cpuid=cpuid) as vm:
        ended = run(vm, CPUID_OF_PV_FEATURES + OUT_AL)
        functions = {leaf.function for leaf in vm.kvm.vcpus[1].get_cpuid()}
    assert ended == ExitInfo("exit", status=0x5A)
    assert seen == {0, 1}
    assert 0x16 not in functions
    assert 1 in functions


def test_the_software_cpu_refuses_what_it_cannot_do() -> None:
    with pytest.raises(MachineError, match="CPUID is its own"):
        machine(cpu="soft", cpuid=lambda _, leaf: leaf)
    with machine(cpu="soft") as vm:
        with pytest.raises(MachineError, match="no memory but its RAM"):
            vm.map_memory(mmap.mmap(-1, 4096), MMIO)
        with pytest.raises(MachineError, match="the soft CPU has no VM of KVM"):
            vm.kvm.program_pics()


def test_mapped_memory_is_read_by_the_guest() -> None:
    page = mmap.mmap(-1, 4096)
    page[0] = 0x77
    with machine() as vm:
        vm.map_memory(page, MMIO)
        ended = run(vm, READ_MAPPED + OUT_AL, "protected")
    assert ended == ExitInfo("exit", status=0x77)


def test_mapped_memory_is_written_by_the_guest() -> None:
    page = mmap.mmap(-1, 4096)
    with machine() as vm:
        vm.map_memory(page, MMIO)
        run(vm, WRITE_MAPPED + OUT_AL, "protected")
        unclaimed = vm.statistics().vcpus[0].unclaimed_writes
    assert (page[0], unclaimed) == (0x41, 0)


def test_a_write_to_read_only_memory_is_an_unclaimed_access() -> None:
    page = mmap.mmap(-1, 4096)
    with machine() as vm:
        vm.map_memory(page, MMIO, readonly=True)
        run(vm, WRITE_MAPPED + OUT_AL, "protected")
        unclaimed = vm.statistics().vcpus[0].unclaimed_writes
    assert (page[0], unclaimed) == (0, 1)


def test_memory_is_mapped_where_nothing_else_is_and_no_device_comes_there() -> None:
    with machine() as vm:
        vm.add(Recorder, mmio=MMIO, size=0x1000, name="there")
        vm.map_memory(mmap.mmap(-1, 8192), MMIO + 0x1000)
        with pytest.raises(MachineError, match="would cover guest RAM"):
            vm.map_memory(mmap.mmap(-1, 4096), 0x1000)
        with pytest.raises(MachineError, match="would cover device there"):
            vm.map_memory(mmap.mmap(-1, 4096), MMIO)
        with pytest.raises(MachineError, match="would cover the in-kernel IOAPIC"):
            vm.map_memory(mmap.mmap(-1, 4096), 0xFEC0_0000)
        with pytest.raises(MachineError, match="memory that was mapped"):
            vm.add(Recorder, mmio=MMIO + 0x2000, size=0x1000)
        with pytest.raises(KvmError, match="EINVAL"):
            vm.map_memory(mmap.mmap(-1, 4096), 0xD100_0010)


def test_the_8259s_are_set_up_for_a_guest_without_firmware() -> None:
    start_pit = b"\xb0\x34\xe6\x43\xb0\x10\xe6\x40\xe6\x40"  # mode 2, a short period
    wait = b"\xfb\xf4\xeb\xfd"
    handler = 0x2000
    with machine() as vm:
        vm.kvm.program_pics(0x50, 0x58, masked=0xFFFE)
        vm.memory.write(4 * 0x50, handler.to_bytes(4, "little"))
        vm.memory.write(handler, b"\xb0\x11" + OUT_AL)
        ended = run(vm, start_pit + wait)
        slave = vm.kvm.get_irqchip(lib.KVM_IRQCHIP_PIC_SLAVE).chip.pic
    assert ended == ExitInfo("exit", status=0x11)
    assert (slave.irq_base, slave.imr) == (0x58, 0xFF)


def test_msr_accesses_that_kvm_does_not_know_are_the_hook_s() -> None:
    unknown_to_kvm, user_space_msr = 1 << 1, "KVM_CAP_X86_USER_SPACE_MSR"
    rdmsr = b"\x66\xb9\x45\x23\x01\x00\x0f\x32"
    seen: list[Any] = []

    def hook(vcpu: Any, at: Any) -> str:
        seen.append((at.name, at.details["index"]))
        vcpu.vcpu.run_struct.msr.data = 0x33
        return "resume"

    with machine() as vm:
        vm.kvm.enable_cap(user_space_msr, unknown_to_kvm)
        vm.on_exit(hook)
        ended = run(vm, rdmsr + OUT_AL)
    assert ended == ExitInfo("exit", status=0x33)
    assert seen == [("KVM_EXIT_X86_RDMSR", 0x12345)]


def test_a_capability_that_is_not_there_is_refused_by_name() -> None:
    with machine() as vm, pytest.raises(MachineError, match="no KVM_CAP_WISHES"):
        vm.kvm.enable_cap("KVM_CAP_WISHES")
