"""XRSTOR's effect on a vCPU: x87, SSE and AVX state out of an XSAVE area in guest memory.

Source: Intel SDM volume 1, 13.4 (layout of the area) and 13.8 (XRSTOR). KVM_GET_XSAVE and KVM_SET_XSAVE give
and take such an area, in the standard format.
"""

from __future__ import annotations

from typing import Final

from shardio._core import ffi
from shardio.kvm.gate import ioctl
from shardio.kvm.vcpu import Vcpu

X87, SSE, AVX = 1 << 0, 1 << 1, 1 << 2
_KNOWN: Final = X87 | SSE | AVX
_XSTATE_BV, _XCOMP_BV, _RESERVED, _HEADER_END = 512, 520, 528, 576
_PARTS: Final = {X87: ((0, 24), (32, 160)), SSE: ((160, 416),), AVX: ((576, 832),)}
"""Where each component lies: begin and end of its bytes. MXCSR, from 24 to 32, goes with SSE and AVX."""
_MXCSR: Final = (24, 32)
AREA_BYTES: Final = 832
_FCW_INITIAL: Final = b"\x7f\x03"


def restore(vcpu: Vcpu, area: bytes) -> bool:
    """Load what EDX:EAX and XCR0 ask for. False, and nothing is done, for an area in the compacted format,
    one that is malformed, or for other components.
    """
    registers = vcpu.get_regs()
    asked = (registers["rdx"] & 0xFFFF_FFFF) << 32 | registers["rax"] & 0xFFFF_FFFF
    xcr0 = _xcr0(vcpu)
    asked &= xcr0
    present = int.from_bytes(area[_XSTATE_BV:_XCOMP_BV], "little")
    if asked & ~_KNOWN or present & ~xcr0 or any(area[_XCOMP_BV:_RESERVED + 16]):
        return False
    state = ffi.new("struct kvm_xsave *")
    ioctl(vcpu.fd, "KVM_GET_XSAVE", state)
    mine = ffi.buffer(state.region)
    held = int.from_bytes(mine[_XSTATE_BV:_XCOMP_BV], "little")
    for component, parts in _PARTS.items():
        if not asked & component:
            continue
        loaded = present & component
        for begin, end in parts:
            mine[begin:end] = area[begin:end] if loaded else bytes(end - begin)
        if component == X87 and not loaded:
            mine[0:2] = _FCW_INITIAL
        held |= component  # the initial state is written out too: what KVM shows follows the bytes
    if asked & (SSE | AVX):
        mine[slice(*_MXCSR)] = area[slice(*_MXCSR)]
    mine[_XSTATE_BV:_XCOMP_BV] = held.to_bytes(8, "little")
    ioctl(vcpu.fd, "KVM_SET_XSAVE", state)
    return True


def _xcr0(vcpu: Vcpu) -> int:
    found = ffi.new("struct kvm_xcrs *")
    ioctl(vcpu.fd, "KVM_GET_XCRS", found)
    values = {entry.xcr: entry.value for entry in found.xcrs[0 : found.nr_xcrs]}
    return int(values.get(0, X87))
