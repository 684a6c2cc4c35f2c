"""The report of a vCPU that stands still: paging, the code's width, the instruction, and the text.

The page tables are laid out as the Intel SDM, volume 3, 4.3 says.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from shardio.memory import GuestMemory
from shardio.vcpu.registers import Segment
from shardio.vcpu.report import VcpuReport, code_bits, disassembled, walk

PAGED = {"cr0": 0x8000_0001, "cr3": 0x1000, "cr4": 0}
LARGE = PAGED | {"cr4": 1 << 4}
CODE = {"selector": 8, "base": 0, "limit": 0xFFFF_FFFF, "type": 0xB, "s": 1, "dpl": 0, "present": 1}
FLAT = Segment(**CODE)


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory(1 << 20) as made:
        yield made


def entry(memory: GuestMemory, at: int, value: int) -> None:
    memory.write(at, value.to_bytes(4, "little"))


def test_without_paging_an_address_is_itself(memory: GuestMemory) -> None:
    assert walk(memory, {"cr0": 1, "cr3": 0, "cr4": 0}, 0x1_0000_7C00) == 0x7C00


def test_a_page_is_found_through_two_tables(memory: GuestMemory) -> None:
    entry(memory, 0x1000 + 4 * 0x301, 0x2003)
    entry(memory, 0x2000 + 4 * 0x05, 0x0007_7003)

    assert walk(memory, PAGED, 0x301 << 22 | 0x5 << 12 | 0xABC) == 0x7_7ABC


def test_a_large_page_is_found_in_the_first_table(memory: GuestMemory) -> None:
    entry(memory, 0x1000 + 4 * 2, 0x00C0_0083)

    assert walk(memory, LARGE, 2 << 22 | 0x12_3456) == 0x00C0_0000 | 0x12_3456


def test_a_large_page_beyond_4_gib_has_its_upper_bits_in_its_entry(memory: GuestMemory) -> None:
    entry(memory, 0x1000, 0x0040_2083)  # bits 20 to 13 are bits 39 to 32

    assert walk(memory, LARGE, 0) == 0x1_0040_0000


@pytest.mark.parametrize("first", [0x2002, 0x2003], ids=["no table", "no page"])
def test_what_is_not_present_is_nowhere(memory: GuestMemory, first: int) -> None:
    entry(memory, 0x1000, first)

    assert walk(memory, PAGED, 0) is None


def test_paging_of_another_kind_is_not_walked(memory: GuestMemory) -> None:
    assert walk(memory, PAGED | {"cr4": 1 << 5}, 0) is None


@pytest.mark.parametrize(
    ("cr0", "cs", "bits"),
    [(0, {"db": 1}, 16), (1, {}, 16), (1, {"db": 1}, 32), (1, {"l": 1}, 64)],
)
def test_the_width_of_code(cr0: int, cs: dict[str, int], bits: int) -> None:
    assert code_bits({"cr0": cr0}, Segment(**CODE, **cs)) == bits


@pytest.mark.parametrize(
    ("bits", "found"),
    [
        (16, (3, "mov ax, 0x1234")),
        (32, (5, "mov eax, 0x90901234")),
        (64, (5, "mov eax, 0x90901234")),
    ],
)
def test_an_instruction_is_told_by_the_codes_width(bits: int, found: tuple[int, str]) -> None:
    assert disassembled(bytes.fromhex("b834129090"), bits, 0x7C00) == found


def test_a_branch_is_told_with_its_target() -> None:
    assert disassembled(bytes.fromhex("ebfe"), 16, 0x7C00) == (2, "jmp 0x7c00")


def test_what_is_no_instruction_is_told_by_its_bytes() -> None:
    assert disassembled(b"\xff\xff\xff", 32, 0) == (3, "")


def test_without_capstone_there_are_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "capstone", None)

    assert disassembled(b"\x90\xf4", 16, 0) == (2, "")


@pytest.mark.parametrize("rip", [0x7C00, 0xFFFF_8000_0000_7C00])
def test_the_text_fits_a_terminal(rip: int) -> None:
    registers = {f"r{n}": n for n in range(16)} | {"rip": rip, "apic_base": 0xFEE0_0900}
    told = VcpuReport(3, "shutdown", "runnable", 64, registers, {"cs": FLAT}, b"\x0f\x0b", "ud2")

    lines = str(told).splitlines()

    assert lines[0] == "vCPU 3: shutdown, runnable, 64-bit code"
    assert lines[-1] == f"at {rip:#x}: ud2   (0f 0b)"
    assert max(map(len, lines)) <= 80


def test_registers_of_long_mode_are_left_out_elsewhere() -> None:
    told = VcpuReport(0, "paused", "halted", 32, {"rax": 1, "r8": 0, "rip": 2}, {}, b"", "")

    assert "r8" not in str(told)
    assert str(told).endswith("at 0x2: not in RAM")
