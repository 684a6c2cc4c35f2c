"""Entry states of a software vCPU: as `shardio.kvm.boot` says, but without long mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shardio.entry import (
    BOOT_TABLES,
    CODE,
    CODE32,
    DATA,
    RESET_VECTOR,
    SELECTORS,
    Entry,
    flat_table,
)
from shardio.errors import MachineError
from shardio.memory import GuestMemory

GENERAL: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
"""Names of the general registers, in the order of their numbers."""
MODES: Final = ("real", "protected")
_CR0_PE, _CR0_ET = 1 << 0, 1 << 4
_RFLAGS_FIXED = 2


def set_entry(
    entry_state: Any,
    memory: GuestMemory,
    mode: str,
    entry: int,
    registers: Mapping[str, int] | None = None,
) -> None:
    """Fills `struct sio_soft_entry *entry_state`. Raises `MachineError` for what a software CPU cannot do."""
    named = dict(Entry(mode, entry, registers or {}).registers)
    cs, ds = (named.pop(name, default) for name, default in zip(SELECTORS, (CODE, DATA), strict=True))
    values = dict.fromkeys(GENERAL, 0) | {"rip": entry, "rflags": _RFLAGS_FIXED}
    if mode == "real":
        # The reset vector's code segment begins at 0xFFFF_0000, which Unicorn cannot be told: the same bytes
        # are below 1 MiB.
        code = 0xF000 if entry == RESET_VECTOR else (entry & ~0xFFFF) >> 4
        values["rip"] = entry & 0xFFFF
        selectors = (0, code, 0, 0, 0, 0)
        entry_state.cr0 = _CR0_ET
        entry_state.gdt_limit = entry_state.idt_limit = 0xFFFF
        entry_state.gdt_base = entry_state.idt_base = 0
    elif mode == "protected":
        table = flat_table(CODE32, cs, ds)
        memory.write(BOOT_TABLES, table)
        values["rsp"] = BOOT_TABLES
        selectors = (ds, cs, ds, ds, ds, ds)
        entry_state.cr0 = _CR0_PE | _CR0_ET
        entry_state.gdt_base, entry_state.gdt_limit = BOOT_TABLES, len(table) - 1
        entry_state.idt_base = entry_state.idt_limit = 0
    else:
        hint = 'use "real" or "protected", or a host with /dev/kvm'
        raise MachineError(f"the software CPU has no {mode} mode", hint)
    values |= named
    unknown = sorted(values.keys() - {*GENERAL, "rip", "rflags"})
    if unknown:
        names = ", ".join((*GENERAL, "rip", "rflags"))
        raise MachineError(f"no register named {unknown[0]!r}", f"the software CPU has {names}")
    entry_state.gpr = [values[name] & 0xFFFF_FFFF for name in GENERAL]
    entry_state.eip, entry_state.eflags = values["rip"] & 0xFFFF_FFFF, values["rflags"] & 0xFFFF_FFFF
    entry_state.selector = selectors
