"""How a guest may begin: real mode, flat 32-bit protected mode, or long mode; for whatever CPU runs it.

`shardio.kvm.boot` tells what each of them means.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from shardio.errors import MachineError

MODES: Final = ("real", "protected", "long")
BOOT_TABLES: Final = 0x9_0000
"""Guest address of the GDT; page tables follow, a page later."""
BOOT_TABLES_END: Final = 0xA_0000
RESET_VECTOR: Final = 0xFFFF_FFF0
REAL_MODE_END: Final = 1 << 20
CODE, DATA = 0x08, 0x10
"""Selectors of the GDT at `BOOT_TABLES`, where an entry names no others."""
REGISTERS: Final = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags",
)  # fmt: skip
"""The general registers, in the order of KVM's `struct kvm_regs`."""
SELECTORS: Final = ("cs", "ds")
"""Selectors that an entry may name too: of the code segment, and of all the others."""
_SELECTOR_LIMIT: Final = 0xFE8  # the TSS, behind, is in the same page
_TASK_SIZE: Final = 0x68
"""Bytes of a TSS (Intel SDM volume 3, 8.2.1); PVH wants a limit of 0x67."""


class Kind(NamedTuple):
    """Flags of a segment descriptor's upper half, Intel SDM volume 3, 3.4.5."""

    type: int
    s: int
    db: int
    l: int  # noqa: E741 (its name there)


CODE32, CODE64 = Kind(0xB, 1, 1, 0), Kind(0xB, 1, 0, 1)
FLAT_DATA, TASK_STATE = Kind(0x3, 1, 1, 0), Kind(0xB, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """How vCPU 0 begins: in `mode` "real", "protected" or "long", at guest address `address`, with
    `registers` by name (`REGISTERS`, and in the modes above real `SELECTORS`); the others are as
    `shardio.kvm.boot` says.

    Raises `MachineError` for another mode, an address at which that mode cannot begin, a register that does
    not exist, or a value that does not fit.

    >>> Entry("protected", 0x10_0000, {"rax": 0x2BAD_B002, "cs": 0x10, "ds": 0x18}).mode
    'protected'
    """

    mode: str
    address: int
    registers: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_mode(self.mode)
        check_entry(self.mode, self.address)
        check_registers(self.mode, self.registers)


def flat_table(code: Kind, cs: int = CODE, ds: int = DATA) -> bytes:
    """The GDT of flat segments over 4 GiB: code at selector `cs`, data at `ds`, and behind both a TSS, of 16
    bytes as long mode has them.
    """
    descriptors = {
        cs: _descriptor(0xF_FFFF, code, 1),
        ds: _descriptor(0xF_FFFF, FLAT_DATA, 1),
        task_selector(cs, ds): _descriptor(_TASK_SIZE - 1, TASK_STATE, 0),
    }
    return b"".join(descriptors.get(at, bytes(8)) for at in range(0, task_selector(cs, ds) + 16, 8))


def task_selector(cs: int, ds: int) -> int:
    """The selector of the TSS in `flat_table`."""
    return max(cs, ds) + 8


def boot_tables(mode: str) -> range:
    """The guest addresses that `mode` takes from an image: GDT and page tables, or none."""
    pages = {"real": 0, "protected": 0x1000, "long": BOOT_TABLES_END - BOOT_TABLES}
    return range(BOOT_TABLES, BOOT_TABLES + pages[mode])


def _descriptor(limit: int, kind: Kind, granularity: int) -> bytes:
    access = 0x80 | (kind.s << 4) | kind.type
    flags = (granularity << 3) | (kind.db << 2) | (kind.l << 1)
    upper = (access << 8) | (flags << 20) | (limit & 0xF_0000)
    return struct.pack("<II", limit & 0xFFFF, upper)


def check_entry(mode: str, entry: int) -> None:
    """Raises `MachineError` for an address at which a guest cannot begin in that mode."""
    limits = {"real": REAL_MODE_END, "protected": 1 << 32, "long": 512 << 30}
    hints = {
        "real": f"use an entry below {REAL_MODE_END:#x}, the reset vector {RESET_VECTOR:#x}, or another mode",
        "protected": "use an entry below 4 GiB",
        "long": "use an entry below 512 GiB",
    }
    if not 0 <= entry < limits[mode] and not (mode == "real" and entry == RESET_VECTOR):
        raise MachineError(f"{mode} mode cannot begin at {entry:#x}", hints[mode])


def check_registers(mode: str, registers: Mapping[str, int]) -> None:
    """Raises `MachineError` for a register that does not exist in that mode, or a value that cannot be."""
    names = REGISTERS if mode == "real" else (*REGISTERS, *SELECTORS)
    for name, value in registers.items():
        if name not in names:
            raise MachineError(f"no register named {name!r} in {mode} mode", f"use one of {', '.join(names)}")
        if not 0 <= value < 1 << 64:
            raise MachineError(f"{name} = {value:#x} is not of 64 bits", "use 0 to 2**64 - 1")
        if name in SELECTORS and (value % 8 or not 0 < value < _SELECTOR_LIMIT):
            raise MachineError(f"{name} = {value:#x} selects nothing", "use a multiple of 8 below 0xfe8")
    if registers.get("cs", CODE) == registers.get("ds", DATA):
        raise MachineError("code and data have one selector", "give cs and ds different values")


def check_mode(mode: str) -> None:
    """Raises `MachineError` for an entry mode that does not exist."""
    if mode not in MODES:
        raise MachineError(f"no entry mode {mode!r}", f"use one of {', '.join(MODES)}")
