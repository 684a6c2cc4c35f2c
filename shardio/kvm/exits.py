"""What made a vCPU leave the guest: the run page's exit, typed, with the names of <linux/kvm.h>.

The `data` of an exit is the run page itself: what it shows is valid until the vCPU runs again. It keeps the
page mapped when the vCPU is closed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shardio._core import ffi, lib

EXIT_NAMES: dict[int, str] = {
    getattr(lib, name): name
    for name in dir(lib)
    if name.startswith("KVM_EXIT_") and name not in ("KVM_EXIT_IO_IN", "KVM_EXIT_IO_OUT")
}
"""Exit reason number to its name ("KVM_EXIT_IO")."""

_SUBERRORS: dict[int, str] = {
    getattr(lib, name): name
    for name in dir(lib)
    if name.startswith("KVM_INTERNAL_ERROR_") and "_FLAG_" not in name
}


@dataclass(frozen=True, slots=True)
class IoExit:
    """KVM_EXIT_IO: `count` accesses of `size` bytes (1, 2, 4) at `port`; `data` views all of their bytes."""

    port: int
    size: int
    count: int
    is_write: bool
    data: memoryview


@dataclass(frozen=True, slots=True)
class MmioExit:
    """KVM_EXIT_MMIO: an access of `size` bytes (1 to 8) at guest-physical `address`; `data` views them."""

    address: int
    size: int
    is_write: bool
    data: memoryview


@dataclass(frozen=True, slots=True)
class OtherExit:
    """Any other reason, by number and `name`, with what KVM tells about it in `details`."""

    reason: int
    name: str
    details: dict[str, int | bytes | tuple[int, ...] | str] = field(default_factory=dict)

    def __str__(self) -> str:
        told = ", ".join(f"{key}={_text(value)}" for key, value in self.details.items())
        return f"{self.name} ({told})" if told else self.name


@dataclass(frozen=True, slots=True)
class Interrupted:
    """KVM_RUN was left because of a signal or of `immediate_exit` (EINTR); nothing is to be answered."""


Exit = IoExit | MmioExit | OtherExit | Interrupted


def exit_name(reason: int) -> str:
    """The name of exit reason `reason` ("KVM_EXIT_MMIO"), or "KVM_EXIT_<number>" for one not known here."""
    return EXIT_NAMES.get(reason, f"KVM_EXIT_{reason}")


def decode(run: Any) -> Exit:
    """The exit that cffi `struct kvm_run *run` holds."""
    reason = run.exit_reason
    if reason == lib.KVM_EXIT_IO:
        io = run.io
        data = _view(run, io.data_offset, io.size * io.count)
        return IoExit(io.port, io.size, io.count, io.direction == lib.KVM_EXIT_IO_OUT, data)
    if reason == lib.KVM_EXIT_MMIO:
        mmio = run.mmio
        data = _view(run, ffi.offsetof("struct kvm_run", "mmio", "data"), mmio.len)
        return MmioExit(mmio.phys_addr, mmio.len, bool(mmio.is_write), data)
    return OtherExit(reason, exit_name(reason), _details(run))


def _view(run: Any, offset: int, length: int) -> memoryview:
    """Of the whole page, so that it holds `run`, which holds the mapping."""
    return memoryview(ffi.buffer(run, offset + length))[offset:]


def _details(run: Any) -> dict[str, int | bytes | tuple[int, ...] | str]:
    reason = run.exit_reason
    if reason == lib.KVM_EXIT_FAIL_ENTRY:
        return {"hardware_reason": run.fail_entry.hardware_entry_failure_reason, "cpu": run.fail_entry.cpu}
    if reason == lib.KVM_EXIT_INTERNAL_ERROR:
        return _internal_error(run)
    if reason == lib.KVM_EXIT_SYSTEM_EVENT:
        event = run.system_event
        return {"type": event.type, "data": tuple(event.data[0 : min(event.ndata, 16)])}
    if reason == lib.KVM_EXIT_UNKNOWN:
        return {"hardware_reason": run.hw.hardware_exit_reason}
    if reason in (lib.KVM_EXIT_X86_RDMSR, lib.KVM_EXIT_X86_WRMSR):
        return {"index": run.msr.index, "data": run.msr.data, "reason": run.msr.reason}
    if reason == lib.KVM_EXIT_IOAPIC_EOI:
        return {"vector": run.eoi.vector}
    return {}


def _internal_error(run: Any) -> dict[str, int | bytes | tuple[int, ...] | str]:
    suberror = run.internal.suberror
    told: dict[str, int | bytes | tuple[int, ...] | str] = {"suberror": suberror}
    told["meaning"] = _SUBERRORS.get(suberror, "unknown")
    failure = run.emulation_failure
    has_bytes = failure.flags & lib.KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES
    if suberror == lib.KVM_INTERNAL_ERROR_EMULATION and failure.ndata >= 1 and has_bytes:
        told["instruction"] = bytes(failure.insn_bytes[0 : min(failure.insn_size, 15)])
        return told
    told["data"] = tuple(run.internal.data[0 : min(run.internal.ndata, 16)])
    return told


def _text(value: int | bytes | tuple[int, ...] | str) -> str:
    if isinstance(value, bytes):
        return value.hex(" ")
    if isinstance(value, tuple):
        return "[" + " ".join(f"{word:#x}" for word in value) + "]"
    return value if isinstance(value, str) else f"{value:#x}"
