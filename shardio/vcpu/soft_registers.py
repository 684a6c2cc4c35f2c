"""The registers of a software vCPU, in the record that it shares with its worker: 32 bits wide, and no MSRs.

Its hidden parts of segments are Unicorn's own: a segment is its selector and, in real mode, the base that
follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from shardio.errors import UnknownRegister, VcpuError
from shardio.soft.boot import GENERAL
from shardio.vcpu.registers import Registers, Segment, Table

_CONTROLS: Final = ("cr0", "cr2", "cr3", "cr4")
_SELECTORS: Final = ("es", "cs", "ss", "ds", "fs", "gs")
_TABLES: Final = ("gdt", "idt")
_FIELDS: Final = {"rip": "eip", "rflags": "eflags"} | {name: name for name in _CONTROLS}
_MASK: Final = 0xFFFF_FFFF
_CR0_PE: Final = 1


class SoftRegisters(Registers):
    """Of `struct sio_soft *cpu`, vCPU `index`; `require_parked` raises while it runs."""

    names = (*GENERAL, *_FIELDS)

    def __init__(self, cpu: Any, index: int, require_parked: Callable[[], None]) -> None:
        self._cpu, self._index = cpu, index
        self._require_parked = require_parked

    def _read(self) -> dict[str, int]:
        shown = self._shown()
        general = dict(zip(GENERAL, shown.gpr, strict=True))
        return general | {name: getattr(shown, field) for name, field in _FIELDS.items()}

    def _write(self, values: Mapping[str, int]) -> None:
        shown = self._shown()
        for name, value in values.items():
            if name in GENERAL:
                shown.gpr[GENERAL.index(name)] = value & _MASK
            else:
                setattr(shown, _FIELDS[name], value & _MASK)
        self._cpu.changed = 1

    def segment(self, name: str) -> Segment:
        """See `Registers.segment`. In protected mode base and limit are taken for flat."""
        shown = self._shown()
        selector = shown.selector[self._number(name)]
        flat = shown.cr0 & _CR0_PE
        base, limit = (0, _MASK) if flat else (selector << 4, 0xFFFF)
        kind = 0xB if name == "cs" else 0x3
        return Segment(
            selector=selector, base=base, limit=limit, type=kind, s=1, dpl=selector & 3, present=1,
            db=flat, g=flat,
        )  # fmt: skip

    def set_segment(self, name: str, segment: Segment) -> None:
        """See `Registers.set_segment`. The selector is loaded, and the rest follows from it."""
        self._shown().selector[self._number(name)] = segment.selector
        self._cpu.changed = 1

    def table(self, name: str) -> Table:
        """See `Registers.table`."""
        shown = self._shown()
        self._known(name, _TABLES)
        return Table(getattr(shown, f"{name}_base"), getattr(shown, f"{name}_limit"))

    def set_table(self, name: str, table: Table) -> None:
        """See `Registers.set_table`."""
        shown = self._shown()
        self._known(name, _TABLES)
        setattr(shown, f"{name}_base", table.base & _MASK)
        setattr(shown, f"{name}_limit", table.limit)
        self._cpu.changed = 1

    def msr(self, index: int) -> int:
        """See `Registers.msr`: raises `VcpuError`."""
        raise VcpuError(self._index, "has no MSRs", "use a host with /dev/kvm")

    def set_msr(self, index: int, value: int) -> None:
        """See `Registers.set_msr`: raises `VcpuError`."""
        raise VcpuError(self._index, "has no MSRs", "use a host with /dev/kvm")

    def _shown(self) -> Any:
        self._require_parked()
        return self._cpu.shown

    def _number(self, name: str) -> int:
        return self._known(name, _SELECTORS)

    @staticmethod
    def _known(name: str, known: tuple[str, ...]) -> int:
        if name not in known:
            raise UnknownRegister(name, known)
        return known.index(name)
