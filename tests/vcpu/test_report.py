"""The report of a vCPU that stands still: the code's width, the instruction, and the text."""

from __future__ import annotations

import sys

import pytest

from shardio.vcpu.registers import Segment
from shardio.vcpu.report import VcpuReport, code_bits, disassembled

CODE = {"selector": 8, "base": 0, "limit": 0xFFFF_FFFF, "type": 0xB, "s": 1, "dpl": 0, "present": 1}
FLAT = Segment(**CODE)


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
