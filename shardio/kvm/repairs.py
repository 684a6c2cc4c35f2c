"""Instructions that KVM's emulator lacks, executed in its place.

Facts. Where the hardware does not virtualise (KVM on PVM), KVM emulates a guest's kernel instruction by
instruction, and gives up at those below: KVM_EXIT_INTERNAL_ERROR, suberror 1, with the instruction's bytes.
It has a #UD raised by then, which the guest takes when it goes on.

Consequences. Each of them is executed here, on the registers of the vCPU that stands still, as the Intel SDM
(volume 2) says, and the #UD is taken back. Everything else is left as it is, to be reported by its bytes.
Where the hardware executes guest code there is nothing to repair, and nothing of this is used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from shardio.errors import HostError, MemoryAccessError
from shardio.kvm.events import cancel_exception, raise_exception
from shardio.kvm.exits import OtherExit
from shardio.kvm.extended_state import AREA_BYTES, restore
from shardio.kvm.instruction import GENERAL, OPERAND_SIZE, REP, REPNE, Instruction, decode, memory_operand
from shardio.kvm.vcpu import Vcpu
from shardio.memory import PAGE_SIZE, GuestMemory

_BREAKPOINT, _NO_FPU = 3, 7
_CR0_MP, _CR0_TS, _CR0_EM = 1 << 1, 1 << 3, 1 << 2
_CR4_OSXSAVE = 1 << 18
_RFLAGS_AC = 1 << 18
_NO_SUCH_CALL = -1000 & 0xFFFF_FFFF_FFFF_FFFF
"""-KVM_ENOSYS of <linux/kvm_para.h>: CPUID offers no hypercall."""
_HYPERCALLS: Final = (b"\x0f\x01\xc1", b"\x0f\x01\xd9")
"""VMCALL and VMMCALL: KVM writes one in place of the other, and executes that, for ever."""
_EXCEPTIONS: Final = 0x7F00
"""What FNCLEX keeps of the FPU's status word: flags of exceptions, summary and busy bit go."""


def emulates(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether KVM here emulates guest code: the processor has neither VMX nor SVM, yet there is a KVM.

    Raises `HostError` where the host lets nobody look.
    """
    try:
        text = cpuinfo.read_text()
    except OSError as error:
        hint = "raise the limit on open files (ulimit -n), or say repairs=True or False"
        raise HostError(f"{cpuinfo}: {error.strerror}", hint) from error
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return not {"vmx", "svm"} & set(flags.split())


def repair_exit(vcpu: Vcpu, memory: GuestMemory, at: object) -> str | None:
    """Execute the instruction at which exit `at` gave up: its name, None where it is none of those known here
    or no such exit. Then nothing has changed.
    """
    if not isinstance(at, OtherExit):
        return None
    code = at.details.get("instruction")
    return repair(vcpu, memory, code) if isinstance(code, bytes) else None


def repair_in_place(vcpu: Vcpu, memory: GuestMemory, _: object) -> str | None:
    """Execute the instruction that `rip` is at where it is one that KVM executes again and again: its name,
    else None.
    """
    rip = vcpu.get_sregs().cs.base + vcpu.get_regs()["rip"]
    code = _copy(vcpu, memory, rip, len(_HYPERCALLS[0]))
    return repair(vcpu, memory, code) if code in _HYPERCALLS else None


def repair(vcpu: Vcpu, memory: GuestMemory, code: bytes) -> str | None:
    """Execute the instruction that `code` begins with, which `rip` is at: see `repair_exit`."""
    found = decode(code, long=bool(vcpu.get_sregs().cs.l))
    for name, matches, execute in _TABLE:
        if found is not None and matches(found):
            return name if execute(vcpu, memory, found) else None
    return None


def _step(vcpu: Vcpu, length: int, **registers: int) -> bool:
    """The instruction is done: the guest goes on behind it."""
    cancel_exception(vcpu)
    vcpu.set_regs(rip=_behind(vcpu, length), **registers)
    return True


def _behind(vcpu: Vcpu, length: int) -> int:
    mask = 0xFFFF_FFFF_FFFF_FFFF if vcpu.get_sregs().cs.l else 0xFFFF_FFFF
    return (vcpu.get_regs()["rip"] + length) & mask


def _enter(vcpu: Vcpu, vector: int, length: int) -> bool:
    """The guest goes on in the handler of `vector`, which returns behind `length` bytes."""
    vcpu.set_regs(rip=_behind(vcpu, length))
    raise_exception(vcpu, vector)
    return True


# ---- one function an instruction -------------------------------------------------------------------------


def _int3(vcpu: Vcpu, _: GuestMemory, found: Instruction) -> bool:
    return _enter(vcpu, _BREAKPOINT, found.length)


def _int(vcpu: Vcpu, _: GuestMemory, found: Instruction) -> bool:
    return _enter(vcpu, found.rest[0], found.length + 1)


def _fwait(vcpu: Vcpu, _: GuestMemory, found: Instruction) -> bool:
    lazy = _CR0_MP | _CR0_TS
    if vcpu.get_sregs().cr0 & lazy == lazy:
        return _enter(vcpu, _NO_FPU, 0)
    return _step(vcpu, found.length)


def _fnclex(vcpu: Vcpu, _: GuestMemory, found: Instruction) -> bool:
    if vcpu.get_sregs().cr0 & (_CR0_TS | _CR0_EM):
        return _enter(vcpu, _NO_FPU, 0)
    fpu = vcpu.get_fpu()
    fpu.fsw &= _EXCEPTIONS
    vcpu.set_fpu(fpu)
    return _step(vcpu, found.length + 1)


def _clac(vcpu: Vcpu, _: GuestMemory, found: Instruction) -> bool:
    return _step(vcpu, found.length + 1, rflags=vcpu.get_regs()["rflags"] & ~_RFLAGS_AC)


def _stac(vcpu: Vcpu, _: GuestMemory, found: Instruction) -> bool:
    return _step(vcpu, found.length + 1, rflags=vcpu.get_regs()["rflags"] | _RFLAGS_AC)


def _vmcall(vcpu: Vcpu, _: GuestMemory, found: Instruction) -> bool:
    return _step(vcpu, found.length + 1, rax=_NO_SUCH_CALL)


def _cache_line(vcpu: Vcpu, _: GuestMemory, found: Instruction) -> bool:
    """A hint about the processor's caches, which guest memory does not depend on."""
    operand = memory_operand(vcpu, found)
    return operand is not None and _step(vcpu, operand.length)


def _movbe(vcpu: Vcpu, memory: GuestMemory, found: Instruction) -> bool:
    operand = memory_operand(vcpu, found)
    if operand is None:
        return False
    size = 8 if found.rex & 8 else 2 if OPERAND_SIZE in found.prefixes else 4
    name = GENERAL[operand.reg]
    old = vcpu.get_regs()[name]
    if found.opcode[2] == 0xF1:
        stored = (old & ((1 << 8 * size) - 1)).to_bytes(size, "big")
        return _copy(vcpu, memory, operand.linear, size, stored) is not None and _step(vcpu, operand.length)
    loaded = _copy(vcpu, memory, operand.linear, size)
    if loaded is None:
        return False
    kept = old & ~0xFFFF if size == 2 else 0  # 32 bits clear the upper half
    return _step(vcpu, operand.length, **{name: kept | int.from_bytes(loaded, "big")})


def _xrstor(vcpu: Vcpu, memory: GuestMemory, found: Instruction) -> bool:
    operand, sregs = memory_operand(vcpu, found), vcpu.get_sregs()
    if operand is None or operand.linear % 64 or not sregs.cr4 & _CR4_OSXSAVE:
        return False
    if sregs.cr0 & _CR0_TS:
        return _enter(vcpu, _NO_FPU, 0)
    area = _copy(vcpu, memory, operand.linear, AREA_BYTES)
    return area is not None and restore(vcpu, area) and _step(vcpu, operand.length)


def _copy(
    vcpu: Vcpu, memory: GuestMemory, linear: int, size: int, stored: bytes | None = None
) -> bytes | None:
    """Read guest memory, or write what is to be `stored`. None where that is not all RAM: nothing is done."""
    parts, at = [], linear
    while at < linear + size:
        physical = vcpu.translate(at)
        length = min(linear + size - at, PAGE_SIZE - at % PAGE_SIZE)
        if physical is None:
            return None
        parts.append((physical, length))
        at += length
    try:
        views = [memory.view(*part) for part in parts]
    except MemoryAccessError:
        return None
    if stored is not None:
        done = 0
        for view in views:
            view[:] = stored[done : done + len(view)]
            done += len(view)
    return b"".join(views)


# ---- which they are --------------------------------------------------------------------------------------


def _is(opcode: bytes, *, rest: int | None = None) -> Callable[[Instruction], bool]:
    def matches(found: Instruction) -> bool:
        plain = not found.prefixes & {OPERAND_SIZE, REP, REPNE, 0xF0}
        return found.opcode == opcode and plain and (rest is None or found.rest[:1] == bytes((rest,)))

    return matches


def _group15(number: int, prefix: int | None) -> Callable[[Instruction], bool]:
    """0F AE with a memory operand; the ModR/M byte's middle bits and a prefix say which instruction it is."""

    def matches(found: Instruction) -> bool:
        told = found.prefixes & {OPERAND_SIZE, REP, REPNE}
        wanted = {prefix} if prefix else set()
        return found.opcode == b"\x0f\xae" and told == wanted and found.rest[:1] != b"" and (
            found.rest[0] >> 3 & 7 == number and found.rest[0] >> 6 != 3
        )

    return matches


def _is_int(found: Instruction) -> bool:
    return found.opcode == b"\xcd" and len(found.rest) > 0


def _is_movbe(found: Instruction) -> bool:
    known = found.opcode in (b"\x0f\x38\xf0", b"\x0f\x38\xf1")
    return known and not found.prefixes & {REP, REPNE, 0xF0}


_Execute = Callable[[Vcpu, GuestMemory, Instruction], bool]
_TABLE: Final[tuple[tuple[str, Callable[[Instruction], bool], _Execute], ...]] = (
    ("INT3", _is(b"\xcc"), _int3),
    ("INT n", _is_int, _int),
    ("FWAIT", _is(b"\x9b"), _fwait),
    ("FNCLEX", _is(b"\xdb", rest=0xE2), _fnclex),
    ("CLAC", _is(b"\x0f\x01", rest=0xCA), _clac),
    ("STAC", _is(b"\x0f\x01", rest=0xCB), _stac),
    ("VMCALL", _is(b"\x0f\x01", rest=0xC1), _vmcall),
    ("VMCALL", _is(b"\x0f\x01", rest=0xD9), _vmcall),
    ("CLFLUSHOPT", _group15(7, OPERAND_SIZE), _cache_line),
    ("CLWB", _group15(6, OPERAND_SIZE), _cache_line),
    ("MOVBE", _is_movbe, _movbe),
    ("XRSTOR", _group15(5, None), _xrstor),
)
