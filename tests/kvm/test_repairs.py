"""Repairs on a real vCPU that is never run: what each does to registers and memory, and what it leaves alone.

Values from the Intel SDM: volume 2, chapter 2 (ModR/M, SIB), MOVBE, WAIT, XRSTOR; volume 1, 13.8.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shardio.errors import HostError, VcpuError
from shardio.kvm import Kvm, Vcpu, set_entry
from shardio.kvm.events import cancel_exception, pending_exception, raise_exception
from shardio.kvm.instruction import Instruction, Memory, decode, memory_operand
from shardio.kvm.repairs import emulates, repair
from shardio.memory import GuestMemory

pytestmark = pytest.mark.kvm

ENTRY = 0x1000
DATA = 0x20_0000
TOP = 0x40_0000
REX_W, REX_R, REX_X, REX_B = 0x48, 0x44, 0x42, 0x41


class Guest:
    """A vCPU in long mode at ENTRY, and its memory."""

    def __init__(self, vcpu: Vcpu, memory: GuestMemory) -> None:
        self.vcpu, self.memory = vcpu, memory

    def repair(self, code: str, **registers: int) -> str | None:
        self.vcpu.set_regs(**registers)
        return repair(self.vcpu, self.memory, bytes.fromhex(code))

    def get(self, name: str) -> int:
        return self.vcpu.get_regs()[name]


@pytest.fixture
def guest() -> Iterator[Guest]:
    with Kvm() as kvm, GuestMemory(TOP) as memory, kvm.create_vm() as vm:
        vm.set_memory(memory)
        vm.create_irqchip()
        vcpu = vm.create_vcpu(0)
        vcpu.set_cpuid(1)
        set_entry(vcpu, memory, "long", ENTRY)
        yield Guest(vcpu, memory)


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("48 0f 38 f0 03", 0x0102030405060708),
        ("0f 38 f0 03", 0x01020304),  # 32 bits clear the upper half
        ("66 0f 38 f0 03", 0xAAAA_AAAA_AAAA_0102),  # 16 bits keep it
    ],
)
def test_movbe_loads_each_width(guest: Guest, code: str, value: int) -> None:
    guest.memory.write(DATA, bytes(range(1, 9)))
    assert guest.repair(code, rax=0xAAAA_AAAA_AAAA_AAAA, rbx=DATA) == "MOVBE"
    assert (guest.get("rax"), guest.get("rip")) == (value, ENTRY + len(bytes.fromhex(code)))


@pytest.mark.parametrize(
    ("code", "stored"),
    [
        ("48 0f 38 f1 03", "0102030405060708"),
        ("0f 38 f1 03", "05060708ffffffff"),
        ("66 0f 38 f1 03", "0708ffffffffffff"),
    ],
)
def test_movbe_stores_each_width(guest: Guest, code: str, stored: str) -> None:
    guest.memory.write(DATA, b"\xff" * 8)
    assert guest.repair(code, rax=0x0102030405060708, rbx=DATA) == "MOVBE"
    assert guest.memory.read(DATA, 8).hex() == stored
    assert guest.get("rip") == ENTRY + len(bytes.fromhex(code))


def test_movbe_across_a_page_s_end(guest: Guest) -> None:
    guest.memory.write(DATA + 0xFFC, bytes(range(1, 9)))
    loaded = guest.repair("48 0f 38 f0 03", rbx=DATA + 0xFFC), guest.get("rax")
    stored = guest.repair("48 0f 38 f1 03", rbx=DATA + 0xFFC, rax=0x1122334455667788)
    assert loaded == ("MOVBE", 0x0102030405060708)
    assert stored == "MOVBE"
    assert guest.memory.read(DATA + 0xFFC, 8).hex() == "1122334455667788"


@pytest.mark.parametrize("code", ["48 0f 38 f0 03", "48 0f 38 f1 03"], ids=["load", "store"])
@pytest.mark.parametrize("address", [TOP - 4, 0xD000_0000, 0xFF00_0000_0000], ids=["end", "mmio", "unmapped"])
def test_movbe_outside_of_ram_changes_nothing(guest: Guest, code: str, address: int) -> None:
    guest.memory.write(TOP - 4, b"kept")
    assert guest.repair(code, rax=5, rbx=address) is None
    assert (guest.get("rax"), guest.get("rip")) == (5, ENTRY)
    assert guest.memory.read(TOP - 4, 4) == b"kept"


@pytest.mark.parametrize(
    ("code", "linear", "reg", "length"),
    [
        ("0f 38 f0 03", 0x3000, 0, 4),  # (rbx)
        ("0f 38 f0 4b f0", 0x2FF0, 1, 5),  # -16(rbx), ecx
        ("0f 38 f0 93 78 56 34 12", 0x1234_8678, 2, 8),  # 0x12345678(rbx), edx
        ("0f 38 f0 05 10 00 00 00", ENTRY + 8 + 0x10, 0, 8),  # 0x10(rip)
        ("0f 38 f0 04 24", 0x9000, 0, 5),  # (rsp)
        ("0f 38 f0 04 4b", 0x3000 + 2 * 0x40, 0, 5),  # (rbx, rcx, 2)
        ("0f 38 f0 04 25 00 20 00 00", 0x2000, 0, 9),  # 0x2000
        ("0f 38 f0 44 8d 04", 0x5000 + 4 * 0x40 + 4, 0, 6),  # 4(rbp, rcx, 4)
        ("41 0f 38 f0 00", 0x8000, 0, 5),  # (r8)
        ("46 0f 38 f0 04 0b", 0x3000 + 0x70, 8, 6),  # (rbx, r9), r8d
        ("43 0f 38 f0 44 25 00", 0xD000 + 0xC000, 0, 7),  # 0(r13, r12)
        ("67 0f 38 f0 06", 0x5678, 0, 5),  # (esi)
        ("64 0f 38 f0 03", 0x3000 + 0x7000, 0, 5),  # fs:(rbx)
    ],
)
def test_memory_operands(guest: Guest, code: str, linear: int, reg: int, length: int) -> None:
    sregs = guest.vcpu.get_sregs()
    sregs.fs.base = 0x7000
    guest.vcpu.set_sregs(sregs)
    low = {"rbx": 0x3000, "rcx": 0x40, "rbp": 0x5000, "rsp": 0x9000, "rsi": 0x1_0000_5678}
    guest.vcpu.set_regs(**low, r8=0x8000, r9=0x70, r12=0xC000, r13=0xD000)
    found = decode(bytes.fromhex(code), long=True)
    assert found is not None
    assert memory_operand(guest.vcpu, found) == Memory(linear, reg, length)


def test_a_register_or_missing_bytes_are_no_memory_operand(guest: Guest) -> None:
    codes = ["0f 38 f0 c3", "0f 38 f0", "0f 38 f0 04", "0f 38 f0 93 78 56"]
    found = [decode(bytes.fromhex(code), long=True) for code in codes]
    assert [memory_operand(guest.vcpu, each) for each in found if each is not None] == [None] * 4


def test_bytes_that_end_within_an_opcode_are_no_instruction() -> None:
    assert [decode(bytes.fromhex(code), long=True) for code in ("", "66", "48", "0f", "0f 38")] == [None] * 5


def test_a_rex_byte_is_a_prefix_in_64_bit_mode_alone() -> None:
    rex = Instruction(frozenset(), 0x48, b"\xcc", b"", 2, True)
    assert decode(b"\x48\xcc", long=True) == rex
    assert decode(b"\x48\xcc", long=False) == Instruction(frozenset(), 0, b"\x48", b"\xcc", 1, False)


@pytest.mark.parametrize(
    ("code", "name", "length"),
    [
        ("66 0f ae 3b", "CLFLUSHOPT", 4),
        ("66 0f ae 73 08", "CLWB", 5),
        ("9b", "FWAIT", 1),
        ("db e2", "FNCLEX", 2),
        ("0f 01 ca", "CLAC", 3),
        ("0f 01 cb", "STAC", 3),
        ("0f 01 c1", "VMCALL", 3),
        ("0f 01 d9", "VMCALL", 3),
    ],
)
def test_what_is_stepped_over(guest: Guest, code: str, name: str, length: int) -> None:
    raise_exception(guest.vcpu, 6)  # as KVM does
    assert guest.repair(code, rbx=DATA) == name
    assert guest.get("rip") == ENTRY + length
    assert pending_exception(guest.vcpu) is None


def test_fwait_with_a_switched_task_is_no_fpu_available(guest: Guest) -> None:
    sregs = guest.vcpu.get_sregs()
    sregs.cr0 |= 1 << 1 | 1 << 3  # MP, TS
    guest.vcpu.set_sregs(sregs)
    assert guest.repair("9b") == "FWAIT"
    assert (pending_exception(guest.vcpu), guest.get("rip")) == (7, ENTRY)


def test_int_n_enters_its_vector_behind_itself(guest: Guest) -> None:
    assert guest.repair("cd 80") == "INT n"
    assert (pending_exception(guest.vcpu), guest.get("rip")) == (0x80, ENTRY + 2)


@pytest.mark.parametrize(
    "code",
    ["f2 48 0f 38 f1 d8", "0f 0b", "cd", "0f ae 24 24", "f3 0f ae 2b", "db e3", "66 9b"],
    ids=["CRC32", "UD2", "cut off", "XSAVE", "INCSSP", "FNINIT", "prefix"],
)
def test_everything_else_is_left_alone(guest: Guest, code: str) -> None:
    raise_exception(guest.vcpu, 6)
    assert guest.repair(code, rbx=DATA) is None
    assert (pending_exception(guest.vcpu), guest.get("rip")) == (6, ENTRY)


@pytest.mark.parametrize(
    "header", [(1 << 40, 0), (1, 1 << 63), (1, 1)], ids=["component", "compacted", "malformed"]
)
def test_an_xsave_area_that_is_not_plain_is_left_alone(guest: Guest, header: tuple[int, int]) -> None:
    sregs = guest.vcpu.get_sregs()
    sregs.cr4 |= 1 << 18
    guest.vcpu.set_sregs(sregs)
    guest.memory.write(DATA + 512, b"".join(word.to_bytes(8, "little") for word in header))
    assert guest.repair("0f ae 2b", rbx=DATA, rax=1) is None
    assert guest.get("rip") == ENTRY


def test_xrstor_of_a_component_that_the_area_has_not_is_its_initial_state(guest: Guest) -> None:
    sregs = guest.vcpu.get_sregs()
    sregs.cr4 |= 1 << 18
    guest.vcpu.set_sregs(sregs)
    fpu = guest.vcpu.get_fpu()
    fpu.fcw, fpu.fsw = 0x27F, 0x3800
    guest.vcpu.set_fpu(fpu)
    guest.memory.write(DATA, bytes(832))
    assert guest.repair("0f ae 2b", rbx=DATA, rax=1) == "XRSTOR"
    after = guest.vcpu.get_fpu()
    assert (after.fcw, after.fsw) == (0x37F, 0)


def test_a_vector_that_does_not_exist_is_refused(guest: Guest) -> None:
    with pytest.raises(VcpuError, match="has no vector 256; use 0 to 255"):
        raise_exception(guest.vcpu, 256)


def test_an_exception_that_was_raised_is_cancelled(guest: Guest) -> None:
    raise_exception(guest.vcpu, 13, 0x18)
    raised = pending_exception(guest.vcpu)
    cancel_exception(guest.vcpu)
    assert (raised, pending_exception(guest.vcpu)) == (13, None)


@pytest.mark.parametrize(
    ("flags", "expected"), [("fpu vmx sse", False), ("fpu svm", False), ("fpu avx vmxish", True)]
)
def test_kvm_emulates_where_there_is_no_vmx_and_no_svm(tmp_path: Path, flags: str, expected: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert emulates(cpuinfo) is expected


def test_where_nobody_may_look_the_error_says_how_to_do_without(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"cpuinfo: No such file.*; .*say repairs=True or False"):
        emulates(tmp_path / "cpuinfo")
