"""Entry states of a software vCPU: as `shardio.kvm.boot` says, but without long mode."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

from shardio.errors import MachineError
from shardio.memory import GuestMemory

BOOT_TABLES: Final = 0x9_0000
RESET_VECTOR: Final = 0xFFFF_FFF0
REAL_MODE_END: Final = 1 << 20
GENERAL: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
"""Names of the general registers, in the order of their numbers."""
_CR0_PE, _CR0_ET, _CR0_NE = 1 << 0, 1 << 4, 1 << 5
_RFLAGS_FIXED = 2
_CODE, _DATA, _TSS = 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x0000_8B00_0000_FFFF


def set_entry(
    entry_state: Any,
    memory: GuestMemory,
    mode: str,
    entry: int,
    registers: Mapping[str, int] | None = None,
) -> None:
    """Fills `struct sio_soft_entry *entry_state`. Raises `MachineError` for what a software CPU cannot do."""
    values = dict.fromkeys(GENERAL, 0) | {"rip": entry, "rflags": _RFLAGS_FIXED}
    if mode == "real":
        if not 0 <= entry < REAL_MODE_END and entry != RESET_VECTOR:
            raise MachineError(
                f"real mode cannot begin at {entry:#x}",
                f"use an entry below {REAL_MODE_END:#x}, the reset vector {RESET_VECTOR:#x}, or another mode",
            )
        # The reset vector's code segment begins at 0xFFFF_0000, which Unicorn cannot be told: the same bytes
        # are below 1 MiB.
        code = 0xF000 if entry == RESET_VECTOR else (entry & ~0xFFFF) >> 4
        values["rip"] = entry & 0xFFFF
        selectors = (0, code, 0, 0, 0, 0)
        entry_state.cr0 = _CR0_ET
        entry_state.gdt_limit = entry_state.idt_limit = 0xFFFF
        entry_state.gdt_base = entry_state.idt_base = 0
    elif mode == "protected":
        if not 0 <= entry < 1 << 32:
            raise MachineError(f"protected mode cannot begin at {entry:#x}", "use an entry below 4 GiB")
        table = struct.pack("<5Q", 0, _CODE, _DATA, _TSS, 0)
        memory.write(BOOT_TABLES, table)
        values["rsp"] = BOOT_TABLES
        selectors = (0x10, 0x08, 0x10, 0x10, 0x10, 0x10)
        entry_state.cr0 = _CR0_PE | _CR0_ET | _CR0_NE
        entry_state.gdt_base, entry_state.gdt_limit = BOOT_TABLES, len(table) - 1
        entry_state.idt_base = entry_state.idt_limit = 0
    else:
        cure = 'use "real" or "protected", or a host with /dev/kvm'
        raise MachineError(f"the software CPU has no {mode} mode", cure)
    values |= registers or {}
    unknown = sorted(values.keys() - {*GENERAL, "rip", "rflags"})
    if unknown:
        names = ", ".join((*GENERAL, "rip", "rflags"))
        raise MachineError(f"no register named {unknown[0]!r}", f"the software CPU has {names}")
    entry_state.gpr = [values[name] & 0xFFFF_FFFF for name in GENERAL]
    entry_state.eip, entry_state.eflags = values["rip"] & 0xFFFF_FFFF, values["rflags"] & 0xFFFF_FFFF
    entry_state.selector = selectors
