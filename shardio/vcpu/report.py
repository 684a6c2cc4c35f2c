"""`VcpuReport`: where a vCPU that stands still is: its registers and MP state, and the instruction there.

Source: Intel SDM volume 3, 3.4.5 (what CS says of the code's width).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import msgspec

from shardio.errors import KvmError, MemoryAccessError, VcpuError
from shardio.memory import PAGE_SIZE
from shardio.vcpu.registers import Segment

if TYPE_CHECKING:
    from shardio.memory import GuestMemory
    from shardio.vcpu.interface import Vcpu

LONGEST_INSTRUCTION: Final = 15
SEGMENTS: Final = ("cs", "ss", "ds", "es", "fs", "gs")
HINT: Final = "pip install 'shardio[disassembly]' names the instruction"
_CR0_PE: Final = 1
_LONG: Final = {f"r{number}" for number in range(8, 16)}
"""Registers that there are in 64-bit mode alone."""


class VcpuReport(msgspec.Struct, frozen=True):
    """A vCPU that stands still. `state`: "paused", "shutdown" and so on; `mp_state`: "runnable", "halted",
    "uninitialized" and so on. `bits`: of its code: 16, 32 or 64. `code`: the bytes at its instruction
    pointer, none where they are not in RAM; `instruction`: them disassembled, "" without capstone.
    """

    vcpu: int
    state: str
    mp_state: str
    bits: int
    registers: dict[str, int]
    segments: dict[str, Segment]
    code: bytes
    instruction: str

    def __hash__(self) -> int:
        return hash((self.vcpu, self.state, self.mp_state, self.code))

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> tuple[str, ...]:
        """As text, in lines of 80 characters at most."""
        told = {name: value for name, value in self.registers.items() if self.bits == 64 or name not in _LONG}
        digits = 16 if any(value >> 32 for value in told.values()) else 8
        shown = [f"{name:>9}={value:0{digits}x}" for name, value in told.items()]
        columns = 3 if digits == 16 else 4
        rows = ["".join(shown[first : first + columns]) for first in range(0, len(shown), columns)]
        rows += [
            f"{name:>9}={each.selector:04x} base={each.base:0{digits}x} limit={each.limit:08x}"
            for name, each in self.segments.items()
        ]
        head = f"vCPU {self.vcpu}: {self.state}, {self.mp_state}, {self.bits}-bit code"
        return (head, *rows, self.at())

    def at(self) -> str:
        """The instruction, with its address and bytes."""
        where = f"at {self.registers['rip']:#x}" if "rip" in self.registers else "somewhere"
        if not self.code:
            return f"{where}: not in RAM"
        if not self.instruction:
            hint = "" if find_spec("capstone") else f"   ({HINT})"
            return f"{where}: {self.code.hex(' ')}{hint}"
        return f"{where}: {self.instruction}   ({self.code.hex(' ')})"


def examine(vcpu: Vcpu, memory: GuestMemory | None) -> VcpuReport:
    """Of a vCPU that is paused, or has ended. Raises `VcpuError` while it runs, and of an external one, which
    has nothing to show.
    """
    registers = vcpu.registers.all()
    if "rip" not in registers:
        raise VcpuError(vcpu.index, "is external", "the process that runs it has its state")
    segments = {name: vcpu.registers.segment(name) for name in SEGMENTS}
    bits = code_bits(registers, segments["cs"])
    code = b"" if memory is None else linear_bytes(vcpu, memory, vcpu.linear_pc, LONGEST_INSTRUCTION)
    length, instruction = disassembled(code, bits, registers["rip"])
    return VcpuReport(
        vcpu.index, vcpu.state.name.lower(), vcpu.mp_state, bits, registers, segments,
        code[:length], instruction,
    )  # fmt: skip


def code_bits(registers: Mapping[str, int], cs: Segment) -> int:
    """How wide the code is: of `l` and `db` of the code segment; 16 in real mode."""
    if not registers["cr0"] & _CR0_PE:
        return 16
    return 64 if cs.l else 32 if cs.db else 16


def disassembled(code: bytes, bits: int, address: int) -> tuple[int, str]:
    """The length of the first instruction of `code`, and its text; all of it and "" without capstone, or for
    what is no instruction.
    """
    try:
        import capstone
    except ImportError:
        return len(code), ""
    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    for found in capstone.Cs(capstone.CS_ARCH_X86, modes[bits]).disasm(code, address, 1):
        return found.size, f"{found.mnemonic} {found.op_str}".strip()
    return len(code), ""


def linear_bytes(vcpu: Vcpu, memory: GuestMemory, linear: int, size: int) -> bytes:
    """What the guest has at a linear address, as far as it is mapped and in RAM."""
    found = b""
    while len(found) < size:
        at = linear + len(found)
        try:
            physical = vcpu.translate(at)
            if physical is None:
                break
            found += memory.read(physical, min(size - len(found), PAGE_SIZE - at % PAGE_SIZE))
        except (MemoryAccessError, KvmError):
            break
    return found
