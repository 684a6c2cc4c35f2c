"""PVH: Xen's direct boot protocol, which Linux, FreeBSD and others take from any hypervisor.

The guest begins in flat 32-bit protected mode with EBX at `struct hvm_start_info` version 1 (Xen's
docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h): command line, modules, memory map, ACPI's RSDP.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from shardio.boot.elf import Elf
from shardio.boot.memory_map import packed
from shardio.boot.module import Module, encoded, place_modules
from shardio.boot.plan import Plan
from shardio.entry import Entry

START_MAGIC: Final = 0x336E_C578
_START_INFO: Final = "<IIIIQQQQII"
_MODULE: Final = "<QQQQ"
_MEMORY_MAP: Final = "<QQI4x"
RSDP: Final = 0x20
"""Offset of `rsdp_paddr`."""


def place_pvh(plan: Plan, elf: Elf, modules: Sequence[Module], command_line: str) -> tuple[Entry, int]:
    """Adds the image and its start info to the plan. Gives the entry, and where the address of the RSDP goes.
    """
    entry = elf.pvh_entry
    assert entry is not None
    if entry >= 1 << 32 or not elf.in_memory(entry):
        raise elf.image.refused("PVH entry note", 0, "an address in a segment below 4 GiB", f"{entry:#x}")
    elf.put(plan)
    placed = place_modules(plan, modules)
    told = [
        struct.pack(_MODULE, module.where.start, len(module.where), module.command_line, 0)
        for module in placed
    ]
    module_list = plan.place("the PVH module list", b"".join(told)) if told else 0
    text = plan.place("the command line", encoded(command_line))
    ranges = packed(plan.memory, _MEMORY_MAP)
    map_at = plan.place("the PVH memory map", ranges)
    count = len(ranges) // struct.calcsize(_MEMORY_MAP)
    info = struct.pack(
        _START_INFO, START_MAGIC, 1, 0, len(told), module_list, text, 0, map_at, count, 0
    )  # fmt: skip
    at = plan.place("the PVH start info", info)
    return Entry("protected", entry, {"rbx": at}), at + RSDP
