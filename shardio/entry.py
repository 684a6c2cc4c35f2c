"""How a guest may begin: real mode, flat 32-bit protected mode, or long mode; for whatever CPU runs it.

`shardio.kvm.boot` tells what each of them means.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from shardio.errors import MachineError

MODES: Final = ("real", "protected", "long")
BOOT_TABLES: Final = 0x9_0000
"""Guest address of the GDT; page tables follow, a page later."""
BOOT_TABLES_END: Final = 0xA_0000
RESET_VECTOR: Final = 0xFFFF_FFF0
REAL_MODE_END: Final = 1 << 20
CODE, DATA, TASK = 0x08, 0x10, 0x18
"""Selectors of the GDT at `BOOT_TABLES`."""


class Kind(NamedTuple):
    """Flags of a segment descriptor's upper half, Intel SDM volume 3, 3.4.5."""

    type: int
    s: int
    db: int
    l: int  # noqa: E741 (its name there)


CODE32, CODE64 = Kind(0xB, 1, 1, 0), Kind(0xB, 1, 0, 1)
FLAT_DATA, TASK_STATE = Kind(0x3, 1, 1, 0), Kind(0xB, 0, 0, 0)


def flat_table(code: Kind) -> bytes:
    """The GDT of flat segments over 4 GiB: null, code, data, and a TSS of 16 bytes as long mode has them."""
    return b"".join(
        (
            struct.pack("<Q", 0),
            _descriptor(0xF_FFFF, code, 1),
            _descriptor(0xF_FFFF, FLAT_DATA, 1),
            _descriptor(0xFFFF, TASK_STATE, 0),
            struct.pack("<Q", 0),
        )
    )


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


def check_mode(mode: str) -> None:
    """Raises `MachineError` for an entry mode that does not exist."""
    if mode not in MODES:
        raise MachineError(f"no entry mode {mode!r}", f"use one of {', '.join(MODES)}")
