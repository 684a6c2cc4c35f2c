"""The processor as a debugger sees it: its target description, register blocks in that order, and values.

Sources: "Debugging with GDB", appendix G.5.5 (i386 Features): the core feature's registers and their order,
sizes as in GDB's own descriptions. The x87 registers are described because the core feature must have them,
and are told to be unavailable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import quoteattr

from shardio.errors import DebuggerError
from shardio.vcpu import Segment, Vcpu

_GENERAL_64: Final = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip",
)  # fmt: skip
_GENERAL_32: Final = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip")
_SEGMENTS: Final = ("cs", "ss", "ds", "es", "fs", "gs")
_X87: Final = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
_CONTROLS: Final = ("cr0", "cr2", "cr3", "cr4")
_CR0_PE: Final = 1
_TYPES: Final = {
    "rip": "code_ptr", "eip": "code_ptr", "rsp": "data_ptr", "rbp": "data_ptr", "esp": "data_ptr",
    "ebp": "data_ptr", "eflags": "shardio_eflags",
}  # fmt: skip
_FLAGS: Final = {
    "CF": 0, "PF": 2, "AF": 4, "ZF": 6, "SF": 7, "TF": 8, "IF": 9, "DF": 10, "OF": 11,
    "NT": 14, "RF": 16, "VM": 17, "AC": 18, "ID": 21,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Register:
    """One register: its name for the debugger, its width in bits, its name here ("" for what is not known),
    and the feature that it is of. `kind`: "general", "segment" (its selector), "base" or "" for an x87 one.
    """

    name: str
    bits: int
    ours: str
    feature: str
    kind: str

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.bits // 8


_CORE, _BASES, _SYSTEM = "org.gnu.gdb.i386.core", "org.gnu.gdb.i386.segments", "shardio.control"


def _core(general: tuple[str, ...], bits: int) -> Iterator[Register]:
    for name in general:
        yield Register(name, bits, "r" + name[-2:] if name[0] == "e" else name, _CORE, "general")
    yield Register("eflags", 32, "rflags", _CORE, "general")
    for name in _SEGMENTS:
        yield Register(name, 32, name, _CORE, "segment")
    for number in range(8):
        yield Register(f"st{number}", 80, "", _CORE, "")
    for name in _X87:
        yield Register(name, 32, "", _CORE, "")


class Architecture:
    """`name` as GDB has it, and its registers in the order in which they travel.

    >>> I386.registers[8].name, X86_64.registers[16].name
    ('eip', 'rip')
    """

    def __init__(self, name: str, general: tuple[str, ...], bits: int) -> None:
        self.name = name
        registers = list(_core(general, bits))
        if bits == 64:
            registers += [Register(f"{each}_base", 64, each, _BASES, "base") for each in ("fs", "gs")]
        registers += [Register(each, bits, each, _SYSTEM, "general") for each in _CONTROLS]
        if bits == 64:
            registers.append(Register("efer", 64, "efer", _SYSTEM, "general"))
        self.registers = tuple(registers)
        self.pc = next(number for number, each in enumerate(registers) if each.ours == "rip")

    def description(self) -> bytes:
        """target.xml."""
        features = dict.fromkeys(each.feature for each in self.registers)
        parts = "".join(self._feature(feature) for feature in features)
        head = '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd">'
        return f"{head}<target><architecture>{self.name}</architecture>{parts}</target>".encode()

    def _feature(self, feature: str) -> str:
        fields = "".join(
            f'<field name={quoteattr(name)} start="{bit}" end="{bit}"/>' for name, bit in _FLAGS.items()
        )
        flags = f'<flags id="shardio_eflags" size="4">{fields}</flags>' if feature == _CORE else ""
        registers = "".join(
            f'<reg name="{each.name}" bitsize="{each.bits}" type="{_type(each)}" regnum="{number}"/>'
            for number, each in enumerate(self.registers)
            if each.feature == feature
        )
        return f'<feature name="{feature}">{flags}{registers}</feature>'

    def block(self, values: Mapping[str, int]) -> bytes:
        """All registers as the g packet has them; "xx" for each byte of one that is not known."""
        return b"".join(self.one(each, values) for each in self.registers)

    def one(self, register: Register, values: Mapping[str, int]) -> bytes:
        """One register as the p packet has it. `values`: by the name for the debugger."""
        if register.name not in values:
            return b"xx" * register.size
        value = values[register.name] & ((1 << register.bits) - 1)
        return value.to_bytes(register.size, "little").hex().encode()


def _type(register: Register) -> str:
    if register.bits == 80:
        return "i387_ext"
    if register.name == "eflags" or register.bits == 64 or register.name in _TYPES:
        return _TYPES.get(register.name, "int64")
    return "int32"


def values(architecture: Architecture, vcpu: Vcpu) -> dict[str, int]:
    """The values of those registers of a vCPU that are known, by the names for the debugger."""
    known, found = vcpu.registers.all(), {}
    for register in architecture.registers:
        if register.kind == "segment":
            found[register.name] = vcpu.registers.segment(register.ours).selector
        elif register.kind == "base":
            found[register.name] = vcpu.registers.segment(register.ours).base
        elif register.ours in known:
            found[register.name] = known[register.ours]
    return found


def set_register(vcpu: Vcpu, register: Register, value: int, now: Mapping[str, int]) -> None:
    """`now`: the values so far; one that stays as it is can always be set. Raises `DebuggerError`."""
    name = register.name
    if name not in now:
        raise DebuggerError(f"{name} is not known here")
    if now[name] == value:
        return
    if register.kind == "general":
        vcpu.registers[register.ours] = value
        return
    segment = vcpu.registers.segment(register.ours)
    fields = {field: getattr(segment, field) for field in Segment.__struct_fields__}
    if register.kind == "base":
        fields["base"] = value
    elif vcpu.registers["cr0"] & _CR0_PE:
        raise DebuggerError(f"{name} is loaded from a descriptor table, which a debugger cannot do")
    else:
        fields |= {"selector": value & 0xFFFF, "base": (value & 0xFFFF) << 4}
    vcpu.registers.set_segment(register.ours, Segment(**fields))


I386: Final = Architecture("i386", _GENERAL_32, 32)
X86_64: Final = Architecture("i386:x86-64", _GENERAL_64, 64)
ARCHITECTURES: Final = {"i386": I386, "x86-64": X86_64}
