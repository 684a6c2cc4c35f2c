"""Puts a machine's tables into guest RAM, where kernels look for them.

The last 128 KiB below 1 MiB is where a PC's firmware is and where kernels scan for the RSDP (ACPI 6.5,
5.2.5.1) and the MP floating pointer (MPS 1.4, chapter 4): ACPI tables begin at `ACPI_ADDRESS`, an MP table at
`MP_ADDRESS`. What they describe is the machine at this moment: devices that come later are in none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, get_args

from shardio.errors import MachineError
from shardio.memory import GuestMemory
from shardio.platform.acpi import acpi_tables
from shardio.platform.hardware import Hardware
from shardio.platform.mp import mp_table

TableKind = Literal["acpi", "mp"]
TABLE_KINDS: Final[tuple[str, ...]] = get_args(TableKind)

ACPI_ADDRESS: Final = 0xE_0000
MP_ADDRESS: Final = 0xF_0000
END: Final = 0x10_0000

_ROOM: Final = {"acpi": (ACPI_ADDRESS, MP_ADDRESS), "mp": (MP_ADDRESS, END)}


def place_tables(
    kind: str, hardware: Hardware, memory: GuestMemory, check: Callable[[range], None] = lambda _: None
) -> range:
    """Write the tables of `kind`, "acpi" or "mp". Gives the guest addresses that they take; `check` is called
    with them before anything is written, and may refuse.

    Raises `MachineError` for another kind, or for more devices than fit; `MemoryAccessError` where RAM ends
    below 1 MiB.
    """
    if kind not in _ROOM:
        raise MachineError(f"no tables {kind!r}", f"use one of {', '.join(TABLE_KINDS)}")
    start, end = _ROOM[kind]
    tables = acpi_tables(hardware, start) if kind == "acpi" else mp_table(hardware, start)
    if start + len(tables) > end:
        raise MachineError(
            f"{kind} tables of {len(tables)} bytes do not fit between {start:#x} and {end:#x}",
            "give the machine fewer devices",
        )
    where = range(start, start + len(tables))
    check(where)
    memory.write(start, tables)
    return where
