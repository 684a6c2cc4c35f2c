"""Entry states: how a vCPU's registers stand when the guest's first instruction runs (x86-64).

* `real`: as after reset, except for CS:IP. `entry` below 1 MiB gives a CS base of `entry` rounded down to 64
  KiB; the reset vector 0xFFFF_FFF0 gives the processor's own state after reset. Other segments: base 0, limit
  64 KiB.
* `protected`: flat 32-bit segments over 4 GiB, no paging, interrupts off.
* `long`: 64-bit, paging on, identity map of the first 13 GiB in 2 MiB pages and of the rest up to 512 GiB in
  1 GiB pages (which count where the vCPU's CPUID has them: KVM on PVM does not), interrupts off.

`protected` and `long` put a GDT, and `long` page tables too, into guest RAM at `BOOT_TABLES` (64 KiB from
0x9_0000; `protected` takes the first 4 KiB alone): an image must leave that free until it has tables of its
own. Selectors: 0x08 code, 0x10 data, or those that the entry names as `cs` and `ds`; the TSS is behind both.

With the in-kernel interrupt controller only vCPU 0 begins; the others wait for INIT and SIPI, which set their
state. Without it, every vCPU begins at the entry that it was given.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from shardio.entry import (
    BOOT_TABLES,
    CODE,
    CODE32,
    CODE64,
    DATA,
    FLAT_DATA,
    REGISTERS,
    RESET_VECTOR,
    SELECTORS,
    TASK_STATE,
    Entry,
    Kind,
    flat_table,
    task_selector,
)
from shardio.kvm.vcpu import Vcpu
from shardio.memory import PAGE_SIZE, GuestMemory

_PML4 = BOOT_TABLES + PAGE_SIZE
_PDPT = _PML4 + PAGE_SIZE
_PAGE_DIRECTORIES = _PDPT + PAGE_SIZE
_GIB = 1 << 30
_LARGE_PAGE = 2 << 20
# What fits between the PDPT and 0xA_0000, where a PC's RAM ends.
_DIRECTORIES = 13
_PRESENT_WRITABLE = 0x3
_LARGE = 0x80

_CR0_PE, _CR0_ET, _CR0_NE, _CR0_PG = 1 << 0, 1 << 4, 1 << 5, 1 << 31
_TASK_LIMIT = 0x67
_CR4_PAE = 1 << 5
_EFER_LME, _EFER_LMA = 1 << 8, 1 << 10
_RFLAGS_FIXED = 0x2


def set_entry(
    vcpu: Vcpu,
    memory: GuestMemory,
    mode: str,
    entry: int,
    registers: Mapping[str, int] | None = None,
) -> None:
    """Puts `vcpu` at guest address `entry` in `mode` ("real", "protected", "long"), with `registers` by name.

    Registers not named are 0, except for `rsp` in the modes above real: the address of `BOOT_TABLES`, growing
    down. Raises `MachineError` for what is no `Entry`, `MemoryAccessError` where RAM ends below the boot
    tables, `KvmError` where KVM refuses the state.
    """
    named = dict(Entry(mode, entry, registers or {}).registers)
    cs, ds = (named.pop(name, default) for name, default in zip(SELECTORS, (CODE, DATA), strict=True))
    values = dict.fromkeys(REGISTERS, 0) | {"rflags": _RFLAGS_FIXED}
    if mode == "real":
        values |= _real(vcpu, entry)
    else:
        values |= _flat(vcpu, memory, entry, mode == "long", (cs, ds))
    vcpu.set_regs(**values | named)


def _real(vcpu: Vcpu, entry: int) -> dict[str, int]:
    sregs = vcpu.get_sregs()
    sregs.cs.base = entry & ~0xFFFF
    # At reset the selector is 0xF000 whatever the base is: Intel SDM volume 3, table 10-1.
    sregs.cs.selector = 0xF000 if entry == RESET_VECTOR else sregs.cs.base >> 4
    vcpu.set_sregs(sregs)
    return {"rip": entry & 0xFFFF}


def _flat(
    vcpu: Vcpu, memory: GuestMemory, entry: int, long: bool, selectors: tuple[int, int]
) -> dict[str, int]:
    sregs = vcpu.get_sregs()
    _flat_segments(sregs, memory, CODE64 if long else CODE32, *selectors)
    sregs.cr0 = _CR0_PE | _CR0_ET  # and no other bit, as PVH and Multiboot have it
    if long:
        _identity_map(memory)
        sregs.cr3 = _PML4
        sregs.cr4 = _CR4_PAE
        sregs.cr0 |= _CR0_NE | _CR0_PG
        sregs.efer = _EFER_LME | _EFER_LMA
    vcpu.set_sregs(sregs)
    return {"rip": entry, "rsp": BOOT_TABLES}


def _flat_segments(sregs: Any, memory: GuestMemory, code: Kind, cs: int, ds: int) -> None:
    """Loads flat segments into `sregs` and writes the GDT that says the same."""
    _set_segment(sregs.cs, cs, 0xFFFF_FFFF, code)
    for segment in (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss):
        _set_segment(segment, ds, 0xFFFF_FFFF, FLAT_DATA)
    _set_segment(sregs.tr, task_selector(cs, ds), _TASK_LIMIT, TASK_STATE)
    table = flat_table(code, cs, ds)
    memory.write(BOOT_TABLES, table)
    sregs.gdt.base, sregs.gdt.limit = BOOT_TABLES, len(table) - 1
    sregs.idt.base, sregs.idt.limit = 0, 0


def _set_segment(segment: Any, selector: int, limit: int, kind: Kind) -> None:
    segment.selector, segment.base, segment.limit = selector, 0, limit
    segment.type, segment.s, segment.db, segment.l = kind
    segment.present, segment.dpl, segment.avl, segment.unusable = 1, 0, 0, 0
    segment.g = int(limit > 0xFFFFF)


def _identity_map(memory: GuestMemory) -> None:
    """Page tables: 2 MiB pages below 13 GiB, 1 GiB pages from there to 512 GiB."""
    directories = [_PAGE_DIRECTORIES + number * PAGE_SIZE for number in range(_DIRECTORIES)]
    pml4 = [_PDPT | _PRESENT_WRITABLE] + [0] * 511
    pdpt = [directory | _PRESENT_WRITABLE for directory in directories]
    pdpt += [gib * _GIB | _PRESENT_WRITABLE | _LARGE for gib in range(_DIRECTORIES, 512)]
    large = range(0, _DIRECTORIES * _GIB, _LARGE_PAGE)
    entries = pml4 + pdpt + [address | _PRESENT_WRITABLE | _LARGE for address in large]
    memory.write(_PML4, struct.pack(f"<{len(entries)}Q", *entries))
