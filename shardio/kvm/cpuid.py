"""CPUID for a vCPU: what KVM supports, with the topology of one package whose cores are the vCPUs (x86-64).

Facts. KVM_GET_SUPPORTED_CPUID returns the host CPU's own APIC id and core counts: a guest that believes them
waits for cores that it does not have. On hosts whose KVM runs on PVM, the paravirtual IPI and kick features
of leaf 0x4000_0001 leave an SMP Linux waiting for ever. Consequence: the topology leaves are rewritten, and
of the paravirtual features only the clocks are kept.
"""

from __future__ import annotations

import errno
from typing import Any

from shardio._core import ffi, lib
from shardio.kvm.gate import check

PV_FEATURES_KEPT = 0x0100_0009
"""Bits of leaf 0x4000_0001 EAX that a guest may see: KVM's clocks (0, 3) and that they are stable (24)."""

_MOST_ENTRIES = 4096
_HYPERVISOR = 1 << 31
_HTT = 1 << 28
_X2APIC_LEAVES = (0x0B, 0x1F)


def supported(kvm_fd: int) -> Any:
    """KVM_GET_SUPPORTED_CPUID on /dev/kvm: a cffi `struct kvm_cpuid2 *`. Raises `KvmError`."""
    room = 128
    while True:
        table = ffi.new("struct kvm_cpuid2 *", {"entries": room})
        table.nent = room
        address = int(ffi.cast("uintptr_t", table))
        result = lib.shardio_kvm_ioctl(kvm_fd, lib.KVM_GET_SUPPORTED_CPUID, address)
        # The table's length is not told in advance: too short is E2BIG.
        if result != -errno.E2BIG or room >= _MOST_ENTRIES:
            check(result, "KVM_GET_SUPPORTED_CPUID")
            return table
        room *= 2


def for_vcpu(host: Any, apic_id: int, vcpus: int) -> Any:
    """`host` (from `supported`) as the vCPU with `apic_id` among `vcpus` sees it: a table of its own."""
    table = ffi.new("struct kvm_cpuid2 *", {"entries": max(host.nent, 1)})
    table.nent = host.nent
    ffi.memmove(table.entries, host.entries, host.nent * ffi.sizeof("struct kvm_cpuid_entry2"))
    width = max(vcpus - 1, apic_id).bit_length()
    for entry in table.entries[0 : table.nent]:
        _adapt(entry, apic_id, vcpus, width)
    return table


def _adapt(entry: Any, apic_id: int, vcpus: int, width: int) -> None:
    """Rewrites one leaf; `width` is how many low bits of an APIC id number a core."""
    leaf = entry.function
    if leaf == 1:
        logical = min(1 << width, 255)
        entry.ebx = (entry.ebx & 0xFFFF) | (logical << 16) | ((apic_id & 0xFF) << 24)
        entry.ecx |= _HYPERVISOR
        entry.edx = entry.edx | _HTT if vcpus > 1 else entry.edx & ~_HTT
    elif leaf == 4 and entry.eax & 0x1F:
        cores = min((1 << width) - 1, 63)
        # Level 3 is shared by the package, the other caches belong to a core.
        sharing = (1 << width) - 1 if (entry.eax >> 5) & 7 == 3 else 0
        entry.eax = (entry.eax & 0x3FFF) | (min(sharing, 0xFFF) << 14) | (cores << 26)
    elif leaf in _X2APIC_LEAVES:
        _topology(entry, apic_id, vcpus, width)
    elif leaf == 0x4000_0001:
        entry.eax &= PV_FEATURES_KEPT
    elif leaf == 0x8000_0008:
        entry.ecx = (min(width, 15) << 12) | min(vcpus - 1, 255)
    elif leaf == 0x8000_001E:
        entry.eax, entry.ebx, entry.ecx = apic_id, apic_id & 0xFF, 0


def _topology(entry: Any, apic_id: int, vcpus: int, width: int) -> None:
    """Levels of leaves 0x0B and 0x1F: 0 is a core of one thread, 1 the package, the rest end the list."""
    levels = {0: (0, 1, 1), 1: (width, vcpus, 2)}
    shift, count, kind = levels.get(entry.index, (0, 0, 0))
    entry.eax, entry.ebx, entry.ecx = shift, count, entry.index | (kind << 8)
    entry.edx = apic_id

