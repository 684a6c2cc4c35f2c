"""An instruction taken apart, as far as repairs need it: prefixes, opcode, and a memory operand's address.

Source: Intel SDM volume 2, chapter 2 (instruction format), tables 2-2 and 2-3 (ModR/M and SIB bytes).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from shardio.kvm.vcpu import Vcpu

GENERAL: Final = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
"""General registers in the order of their numbers."""
OPERAND_SIZE, ADDRESS_SIZE, REPNE, REP = 0x66, 0x67, 0xF2, 0xF3
_SEGMENTS: Final = {0x26: "es", 0x2E: "cs", 0x36: "ss", 0x3E: "ds", 0x64: "fs", 0x65: "gs"}
_PREFIXES: Final = {OPERAND_SIZE, ADDRESS_SIZE, REPNE, REP, 0xF0, *_SEGMENTS}
_DISPLACEMENT: Final = {0: 0, 1: 1, 2: 4}


class Instruction(NamedTuple):
    """`length`: bytes up to the end of the opcode, `rest` those behind it; `long`: in 64-bit mode."""

    prefixes: frozenset[int]
    rex: int
    opcode: bytes
    rest: bytes
    length: int
    long: bool


class Memory(NamedTuple):
    """A memory operand: its `linear` address, the other operand's number `reg`, and the whole `length`."""

    linear: int
    reg: int
    length: int


def decode(code: bytes, *, long: bool) -> Instruction | None:
    """The instruction that `code` begins with; `long`: in 64-bit mode. None where the bytes end before it."""
    at, prefixes, rex = 0, set(), 0
    while at < len(code) and code[at] in _PREFIXES:
        prefixes.add(code[at])
        at += 1
    if long and at < len(code) and code[at] & 0xF0 == 0x40:
        rex = code[at]
        at += 1
    width = 1
    if code[at : at + 1] == b"\x0f":
        width = 3 if code[at + 1 : at + 2] in (b"\x38", b"\x3a") else 2
    if len(code) < at + width:
        return None
    end = at + width
    return Instruction(frozenset(prefixes), rex, code[at:end], code[end:], end, long)


def memory_operand(vcpu: Vcpu, found: Instruction) -> Memory | None:
    """The operand that the ModR/M byte names. None for a register, where bytes are missing, and outside of
    64-bit mode.
    """
    rest = found.rest
    if not rest or not found.long:
        return None
    mode, reg, rm = rest[0] >> 6, rest[0] >> 3 & 7 | (found.rex & 4) << 1, rest[0] & 7
    if mode == 3:
        return None
    registers, at, address, based_on_rip = vcpu.get_regs(), 1, 0, False
    size = _DISPLACEMENT[mode]
    segment = "ds"
    if rm == 4:
        if len(rest) < 2:
            return None
        scale, index, base = rest[1] >> 6, rest[1] >> 3 & 7 | (found.rex & 2) << 2, rest[1] & 7
        at = 2
        if index != 4:
            address += registers[GENERAL[index]] << scale
        if base == 5 and mode == 0:
            size = 4
        else:
            address += registers[GENERAL[base | (found.rex & 1) << 3]]
            segment = "ss" if base in (4, 5) and not found.rex & 1 else "ds"
    elif rm == 5 and mode == 0:
        size, based_on_rip = 4, True
    else:
        address += registers[GENERAL[rm | (found.rex & 1) << 3]]
    if len(rest) < at + size:
        return None
    address += int.from_bytes(rest[at : at + size], "little", signed=True)
    length = found.length + at + size
    if based_on_rip:
        address += registers["rip"] + length
    address &= 0xFFFF_FFFF if ADDRESS_SIZE in found.prefixes else 0xFFFF_FFFF_FFFF_FFFF
    named = next((_SEGMENTS[prefix] for prefix in found.prefixes if prefix in _SEGMENTS), segment)
    if named in ("fs", "gs"):  # the others' bases count as 0 in 64-bit mode
        address += getattr(vcpu.get_sregs(), named).base
    return Memory(address & 0xFFFF_FFFF_FFFF_FFFF, reg, length)
