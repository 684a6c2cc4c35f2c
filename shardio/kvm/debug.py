"""Breakpoints, watchpoints and single steps of a vCPU of KVM: KVM_SET_GUEST_DEBUG.

Facts. On a processor that virtualises, KVM reports INT3 (KVM_GUESTDBG_USE_SW_BP), debug registers
(KVM_GUESTDBG_USE_HW_BP) and single steps as KVM_EXIT_DEBUG. Where KVM emulates the guest (on PVM) steps and
breakpoints in debug registers are reported so too, but INT3 goes to the guest's own handler in real mode and
is an emulation failure elsewhere, and accesses to watched memory are not seen at all. Its emulator lacks INT1
(ICEBP, F1) in every mode: KVM_EXIT_INTERNAL_ERROR, suberror 1, with the instruction's bytes.

Consequences. What is planted in guest memory is INT3 on the one, INT1 on the other. Where nothing sees
watched memory, the vCPU goes on step by step and its worker compares the bytes (native/vcpu_loop.h): that
finds writes which change something, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from shardio._core import ffi, lib
from shardio.kvm.exits import OtherExit
from shardio.kvm.gate import capability, ioctl
from shardio.kvm.vcpu import Vcpu

INT1: Final = b"\xf1"
INT3: Final = b"\xcc"
_BREAKPOINT_VECTOR: Final = 3
_DR7_FIXED: Final = 1 << 10
_KINDS: Final = {"execute": 0, "write": 1, "read": 3, "access": 3}
"""R/W fields of DR7 (Intel SDM volume 3, 18.2.4); there is none for reads alone."""
_LENGTHS: Final = {1: 0, 2: 1, 4: 3, 8: 2}


def fits(address: int, size: int) -> bool:
    """Whether a debug register can watch `size` bytes at `address`."""
    return size in _LENGTHS and address % size == 0


def set_guest_debug(
    vcpu: Vcpu,
    entries: Sequence[tuple[int, int, str]] = (),
    *,
    step: bool = False,
    block_interrupts: bool = False,
    planted: bool = False,
    reinject: bool = False,
) -> None:
    """Put (address, size, kind) into the debug registers, at most four. `step`: leave after one instruction,
    and `block_interrupts` meanwhile, where KVM can; `planted`: INT3 is a debugger's; `reinject`: the guest
    takes the INT3 that was reported. Raises `KvmError`.
    """
    request = ffi.new("struct kvm_guest_debug *")
    control = lib.KVM_GUESTDBG_ENABLE if entries or step or planted or reinject else 0
    control |= lib.KVM_GUESTDBG_SINGLESTEP if step else 0
    control |= lib.KVM_GUESTDBG_BLOCKIRQ if block_interrupts and steps_block_interrupts() else 0
    control |= lib.KVM_GUESTDBG_USE_SW_BP if planted else 0
    control |= lib.KVM_GUESTDBG_INJECT_BP if reinject else 0
    if entries:
        control |= lib.KVM_GUESTDBG_USE_HW_BP
        request.arch.debugreg[7] = _DR7_FIXED
    for number, (address, size, kind) in enumerate(entries):
        request.arch.debugreg[number] = address
        fields = _KINDS[kind] | _LENGTHS[size] << 2
        request.arch.debugreg[7] |= 1 << 2 * number | fields << (16 + 4 * number)
    request.control = control
    ioctl(vcpu.fd, "KVM_SET_GUEST_DEBUG", request)


@cache
def steps_block_interrupts() -> bool:
    """Whether a step can leave interrupts for later, or would it end in a handler: KVM_GUESTDBG_BLOCKIRQ."""
    from shardio.kvm.kvm import Kvm

    with Kvm() as kvm:
        return bool(capability(kvm.fd, "KVM_CAP_SET_GUEST_DEBUG2") & lib.KVM_GUESTDBG_BLOCKIRQ)


def debug_details(run: Any) -> tuple[int, int]:
    """Of KVM_EXIT_DEBUG: the exception's vector (1 or 3) and what DR6 says."""
    told = ffi.cast("shardio_kvm_exit_debug *", ffi.addressof(run, "mmio"))
    return int(told.exception), int(told.dr6)


def is_int3(vector: int) -> bool:
    """Whether a debug exit's vector is that of INT3."""
    return vector == _BREAKPOINT_VECTOR


def register_hit(dr6: int) -> int | None:
    """Which debug register DR6 tells of, None for none: a step."""
    hits = dr6 & 0xF
    return (hits & -hits).bit_length() - 1 if hits else None


def is_planted_int1(exit_: Any) -> bool:
    """Whether this is the exit of an INT1 that KVM's emulator lacks."""
    if not isinstance(exit_, OtherExit) or exit_.reason != lib.KVM_EXIT_INTERNAL_ERROR:
        return False
    instruction = exit_.details.get("instruction")
    return isinstance(instruction, bytes) and instruction[:1] == INT1
