"""The registers of a vCPU of KVM: KVM_GET_REGS, KVM_GET_SREGS, KVM_GET_MSRS and their other halves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shardio.entry import REGISTERS
from shardio.errors import UnknownRegister
from shardio.kvm.vcpu import Vcpu
from shardio.kvm.x86_vcpu import CONTROLS, SEGMENTS
from shardio.vcpu.registers import Registers, Segment, Table

_TABLES = ("gdt", "idt")


class KvmRegisters(Registers):
    """Of `vcpu`; `require_parked` raises while it runs."""

    names = (*REGISTERS, *CONTROLS)

    def __init__(self, vcpu: Vcpu, require_parked: Callable[[], None]) -> None:
        self._vcpu = vcpu
        self._require_parked = require_parked

    def _read(self) -> dict[str, int]:
        self._require_parked()
        sregs = self._vcpu.get_sregs()
        return self._vcpu.get_regs() | {name: getattr(sregs, name) for name in CONTROLS}

    def _write(self, values: Mapping[str, int]) -> None:
        self._require_parked()
        controls = {name: value for name, value in values.items() if name in CONTROLS}
        if controls:
            sregs = self._vcpu.get_sregs()
            for name, value in controls.items():
                setattr(sregs, name, value)
            self._vcpu.set_sregs(sregs)
        if general := {name: value for name, value in values.items() if name in REGISTERS}:
            self._vcpu.set_regs(**general)

    def segment(self, name: str) -> Segment:
        """See `Registers.segment`."""
        found = getattr(self._sregs(name, SEGMENTS), name)
        return Segment(**{field: getattr(found, field) for field in Segment.__struct_fields__})

    def set_segment(self, name: str, segment: Segment) -> None:
        """See `Registers.set_segment`."""
        sregs = self._sregs(name, SEGMENTS)
        for field in Segment.__struct_fields__:
            setattr(getattr(sregs, name), field, getattr(segment, field))
        self._vcpu.set_sregs(sregs)

    def table(self, name: str) -> Table:
        """See `Registers.table`."""
        found = getattr(self._sregs(name, _TABLES), name)
        return Table(found.base, found.limit)

    def set_table(self, name: str, table: Table) -> None:
        """See `Registers.set_table`."""
        sregs = self._sregs(name, _TABLES)
        entry = getattr(sregs, name)
        entry.base, entry.limit = table.base, table.limit
        self._vcpu.set_sregs(sregs)

    def msr(self, index: int) -> int:
        """See `Registers.msr`."""
        self._require_parked()
        return self._vcpu.get_msr(index)

    def set_msr(self, index: int, value: int) -> None:
        """See `Registers.set_msr`."""
        self._require_parked()
        self._vcpu.set_msr(index, value)

    def _sregs(self, name: str, known: tuple[str, ...]) -> Any:
        if name not in known:
            raise UnknownRegister(name, known)
        self._require_parked()
        return self._vcpu.get_sregs()
