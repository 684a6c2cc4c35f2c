"""CPUID for a vCPU: what KVM supports, with the topology of one package whose cores are the vCPUs (x86-64).

Facts. KVM_GET_SUPPORTED_CPUID returns the host CPU's own APIC id and core counts: a guest that believes them
waits for cores that it does not have. On hosts whose KVM runs on PVM, the paravirtual IPI and kick features
of leaf 0x4000_0001 leave an SMP Linux waiting for ever. Consequence: the topology leaves are rewritten, and
of the paravirtual features only the clocks are kept.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import msgspec

from shardio._core import ffi, lib
from shardio.kvm.gate import check

PV_FEATURES_KEPT = 0x0100_0009
"""Bits of leaf 0x4000_0001 EAX that a guest may see: KVM's clocks (0, 3) and that they are stable (24)."""


class CpuidLeaf(msgspec.Struct, frozen=True):
    """What CPUID answers for a `function` (EAX) and, where the leaf has some, an `index` (ECX)."""

    function: int
    index: int
    eax: int
    ebx: int
    ecx: int
    edx: int


CpuidFilter = Callable[[int, CpuidLeaf], CpuidLeaf | None]
"""Gets a vCPU's number and a leaf, and gives the leaf that the guest sees; None leaves it out."""

MOST_ENTRIES = 4096
_HYPERVISOR = 1 << 31
_HTT = 1 << 28
_CMP_LEGACY = 1 << 1
_X2APIC = 0x0B
_X2APIC_V2 = 0x1F
_LEVELS = 3


def supported(kvm_fd: int) -> Any:
    """KVM_GET_SUPPORTED_CPUID on /dev/kvm: a cffi `struct kvm_cpuid2 *`. Raises `KvmError`."""
    room = 128
    while True:
        table = ffi.new("struct kvm_cpuid2 *", {"entries": room})
        table.nent = room
        address = int(ffi.cast("uintptr_t", table))
        result = lib.shardio_kvm_ioctl(kvm_fd, lib.KVM_GET_SUPPORTED_CPUID, address)
        # The table's length is not told in advance: too short is E2BIG.
        if result != -errno.E2BIG or room >= MOST_ENTRIES:
            check(result, "KVM_GET_SUPPORTED_CPUID")
            return table
        room *= 2


def for_vcpu(host: Any, apic_id: int, vcpus: int) -> Any:
    """`host` (from `supported`) as the vCPU with `apic_id` among `vcpus` sees it: a table of its own."""
    # KVM lists the first level of leaf 0x0B alone: all are made here. Leaf 0x1F would say the same, and goes.
    kept = [entry for entry in host.entries[0 : host.nent] if entry.function not in (_X2APIC, _X2APIC_V2)]
    table = ffi.new("struct kvm_cpuid2 *", {"entries": len(kept) + _LEVELS})
    table.nent = len(kept) + _LEVELS
    width = max(vcpus - 1, apic_id).bit_length()
    for number, entry in enumerate(kept):
        ffi.memmove(table.entries + number, ffi.addressof(entry), ffi.sizeof("struct kvm_cpuid_entry2"))
        _adapt(table.entries[number], apic_id, vcpus, width)
    for level in range(_LEVELS):
        _topology(table.entries[len(kept) + level], level, apic_id, vcpus, width)
    return table


def _adapt(entry: Any, apic_id: int, vcpus: int, width: int) -> None:
    """Rewrites one leaf; `width` is how many low bits of an APIC id number a core."""
    leaf = entry.function
    if leaf == 1:
        logical = min(1 << width, 255)
        entry.ebx = (entry.ebx & 0xFFFF) | (logical << 16) | ((apic_id & 0xFF) << 24)
        entry.ecx |= _HYPERVISOR
        entry.edx = _with(entry.edx, _HTT, vcpus > 1)
    elif leaf in (4, 0x8000_001D) and entry.eax & 0x1F:
        # Level 3 is shared by the package, the other caches belong to a core.
        sharing = min((1 << width) - 1, 0xFFF) if (entry.eax >> 5) & 7 == 3 else 0
        cores = min((1 << width) - 1, 63) if leaf == 4 else 0
        entry.eax = (entry.eax & 0x3FFF) | (sharing << 14) | (cores << 26)
    elif leaf == 0x4000_0001:
        entry.eax &= PV_FEATURES_KEPT
    elif leaf == 0x8000_0001:
        entry.ecx = _with(entry.ecx, _CMP_LEGACY, vcpus > 1)
    elif leaf == 0x8000_0008:
        entry.ecx = (min(width, 15) << 12) | min(vcpus - 1, 255)
    elif leaf == 0x8000_001E:
        entry.eax, entry.ebx, entry.ecx = apic_id, apic_id & 0xFF, 0


def _with(word: int, bits: int, wanted: bool) -> int:
    return word | bits if wanted else word & ~bits


def _topology(entry: Any, level: int, apic_id: int, vcpus: int, width: int) -> None:
    """Leaf 0x0B: level 0 is a core of one thread, level 1 the package, level 2 ends the list."""
    levels = {0: (0, 1, 1), 1: (width, vcpus, 2)}
    shift, count, kind = levels.get(level, (0, 0, 0))
    entry.function, entry.index, entry.flags = _X2APIC, level, lib.KVM_CPUID_FLAG_SIGNIFCANT_INDEX
    entry.eax, entry.ebx, entry.ecx = shift, count, level | (kind << 8)
    entry.edx = apic_id


def filtered(table: Any, vcpu: int, cpuid_filter: CpuidFilter) -> Any:
    """`table` with each leaf as `cpuid_filter` gives it."""
    kept = []
    for entry in table.entries[0 : table.nent]:
        names = CpuidLeaf.__struct_fields__
        leaf = cpuid_filter(vcpu, CpuidLeaf(*(getattr(entry, name) for name in names)))
        if leaf is not None:
            kept.append({"flags": entry.flags} | {name: getattr(leaf, name) for name in names})
    return ffi.new("struct kvm_cpuid2 *", {"nent": len(kept), "entries": kept})
