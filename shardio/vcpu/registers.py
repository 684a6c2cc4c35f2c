"""A vCPU's registers as its user sees them, whatever runs it: general, segment, control and model-specific.

They are those of a vCPU that stands still: paused, at an exit that a hook is asked about, or ended. Each look
and each change goes to the vCPU at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import msgspec

from shardio.errors import UnknownRegister, VcpuError


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A segment register with its hidden part: Intel SDM volume 3, 3.4.5; `limit` in bytes, less one."""

    selector: int
    base: int
    limit: int
    type: int
    s: int
    dpl: int
    present: int
    avl: int = 0
    l: int = 0  # noqa: E741 (its name there)
    db: int = 0
    g: int = 0
    unusable: int = 0


class Table(msgspec.Struct, frozen=True):
    """Where a descriptor table is, and its last byte's offset: GDTR and IDTR."""

    base: int
    limit: int


class Registers(Mapping[str, int], ABC):
    """Registers by name: the general ones, the instruction pointer, the flags and the control registers.

    `registers["rip"] += 1` changes one, `update(rax=1, rbx=2)` several at once. Raises `VcpuError` while the
    vCPU runs, `UnknownRegister` for a name or a number that it does not have, `KvmError` for a value that KVM
    refuses.
    """

    names: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> int:
        self._check(name)
        return self._read()[name]

    def __setitem__(self, name: str, value: int) -> None:
        self.update(**{name: value})

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __repr__(self) -> str:
        return " ".join(f"{name}={value:#x}" for name, value in self.all().items())

    def all(self) -> dict[str, int]:
        """All of them as they are now, in one look."""
        return self._read()

    def update(self, **values: int) -> None:
        """Set those given by name, and keep the others."""
        for name in values:
            self._check(name)
        self._write(values)

    @abstractmethod
    def segment(self, name: str) -> Segment:
        """A segment register ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")."""

    @abstractmethod
    def set_segment(self, name: str, segment: Segment) -> None:
        """Set a segment register with its hidden part."""

    @abstractmethod
    def table(self, name: str) -> Table:
        """A descriptor table's register ("gdt", "idt")."""

    @abstractmethod
    def set_table(self, name: str, table: Table) -> None:
        """Set a descriptor table's register."""

    @abstractmethod
    def msr(self, index: int) -> int:
        """The model-specific register with this number (KVM_GET_MSRS)."""

    @abstractmethod
    def set_msr(self, index: int, value: int) -> None:
        """Set the model-specific register with this number (KVM_SET_MSRS)."""

    @abstractmethod
    def _read(self) -> dict[str, int]:
        """All of `names`."""

    @abstractmethod
    def _write(self, values: Mapping[str, int]) -> None:
        """Some of `names`."""

    def _check(self, name: str) -> None:
        if name not in self.names:
            raise UnknownRegister(name, self.names)


def is_external(vcpu: int) -> VcpuError:
    """The refusal of what only the process that runs this vCPU can do."""
    return VcpuError(vcpu, "is external", "the process that runs it has its state")


class NoRegisters(Registers):
    """Of a vCPU whose process has them to itself."""

    def __init__(self, vcpu: int) -> None:
        self._vcpu = vcpu

    def segment(self, name: str) -> Segment:
        """See `Registers.segment`: raises `VcpuError`."""
        raise is_external(self._vcpu)

    def set_segment(self, name: str, segment: Segment) -> None:
        """See `Registers.set_segment`: raises `VcpuError`."""
        raise is_external(self._vcpu)

    def table(self, name: str) -> Table:
        """See `Registers.table`: raises `VcpuError`."""
        raise is_external(self._vcpu)

    def set_table(self, name: str, table: Table) -> None:
        """See `Registers.set_table`: raises `VcpuError`."""
        raise is_external(self._vcpu)

    def msr(self, index: int) -> int:
        """See `Registers.msr`: raises `VcpuError`."""
        raise is_external(self._vcpu)

    def set_msr(self, index: int, value: int) -> None:
        """See `Registers.set_msr`: raises `VcpuError`."""
        raise is_external(self._vcpu)

    def _read(self) -> dict[str, int]:
        return {}

    def _write(self, values: Mapping[str, int]) -> None:
        """There is none whose name would be known."""
