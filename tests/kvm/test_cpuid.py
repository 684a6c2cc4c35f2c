"""CPUID tables: one package of so many cores, whatever the host is."""

from __future__ import annotations

from typing import Any

import pytest

from shardio._core import ffi
from shardio.kvm import Kvm
from shardio.kvm.cpuid import for_vcpu

Leaves = dict[tuple[int, int], Any]

TOPOLOGIES = [(1, 0, 1), (2, 1, 2), (3, 2, 4), (4, 3, 4)]
"""vCPUs, the APIC id asked for, and how many ids the package spans."""


def host_table(*entries: dict[str, int]) -> Any:
    """A table as KVM_GET_SUPPORTED_CPUID gives one, with these leaves."""
    return ffi.new("struct kvm_cpuid2 *", {"nent": len(entries), "entries": list(entries)})


HOST = [
    {"function": 1, "ebx": 0x37100800, "ecx": 0x1, "edx": 0x1},
    {"function": 4, "index": 0, "flags": 1, "eax": 0xFC004121},
    {"function": 4, "index": 3, "flags": 1, "eax": 0xFC1FC163},
    {"function": 4, "index": 4, "flags": 1, "eax": 0},
    {"function": 0x0B, "index": 0, "flags": 1, "edx": 0x37},
    {"function": 0x1F, "index": 0, "flags": 1, "edx": 0x37},
    {"function": 0x4000_0001, "eax": 0x0100_7EFB},
    {"function": 0x8000_0001, "ecx": 0x2},
    {"function": 0x8000_0008, "ecx": 0x700F},
    {"function": 0x8000_001D, "index": 3, "flags": 1, "eax": 0x001FC163},
    {"function": 0x8000_001E, "eax": 0x37, "ebx": 0x1137, "ecx": 0x7},
    {"function": 0x8000_0002, "eax": 0x12345678},
]


def leaves(apic_id: int, vcpus: int) -> Leaves:
    """The leaves that the vCPU sees, by (function, index), with copies of their entries."""
    table = for_vcpu(host_table(*HOST), apic_id, vcpus)
    copies = [ffi.new("struct kvm_cpuid_entry2 *", entry)[0] for entry in table.entries[0 : table.nent]]
    found = {(entry.function, entry.index): entry for entry in copies}
    assert len(found) == table.nent
    return found


@pytest.mark.parametrize(("vcpus", "apic_id", "span"), TOPOLOGIES)
def test_leaf_1_has_the_apic_id_and_the_logical_processors(vcpus, apic_id, span):
    leaf = leaves(apic_id, vcpus)[1, 0]
    assert (leaf.ebx >> 24, leaf.ebx >> 16 & 0xFF, leaf.ebx & 0xFFFF) == (apic_id, span, 0x0800)
    assert (leaf.ecx, leaf.edx >> 28 & 1, leaf.edx & 1) == (0x8000_0001, int(vcpus > 1), 1)


@pytest.mark.parametrize(("vcpus", "apic_id", "span"), TOPOLOGIES)
def test_the_first_cache_is_a_core_s_and_the_third_the_package_s(vcpus, apic_id, span):
    found = leaves(apic_id, vcpus)
    assert [found[4, index].eax >> 14 & 0xFFF for index in (0, 3)] == [0, span - 1]
    assert [found[4, index].eax >> 26 for index in (0, 3, 4)] == [span - 1, span - 1, 0]
    assert found[0x8000_001D, 3].eax == 0x0163 | (span - 1) << 14


@pytest.mark.parametrize(("vcpus", "apic_id", "span"), TOPOLOGIES)
def test_leaf_0b_has_two_levels_and_an_end(vcpus, apic_id, span):
    found = leaves(apic_id, vcpus)
    levels = [found[0x0B, level] for level in range(3)]
    assert [(1 << leaf.eax, leaf.ebx) for leaf in levels] == [(1, 1), (span, vcpus), (1, 0)]
    assert [leaf.ecx for leaf in levels] == [0x100, 0x201, 2]
    assert [leaf.edx for leaf in levels] == [apic_id] * 3
    assert (0x1F, 0) not in found


@pytest.mark.parametrize(("vcpus", "apic_id", "span"), TOPOLOGIES)
def test_amd_s_leaves_agree(vcpus, apic_id, span):
    found = leaves(apic_id, vcpus)
    assert found[0x8000_0001, 0].ecx == (2 if vcpus > 1 else 0)
    assert found[0x8000_0008, 0].ecx == (span.bit_length() - 1) << 12 | vcpus - 1
    assert (found[0x8000_001E, 0].eax, found[0x8000_001E, 0].ebx) == (apic_id, apic_id)


def test_of_the_paravirtual_features_only_the_clocks_stay():
    assert leaves(0, 1)[0x4000_0001, 0].eax == 0x0100_0009


def test_other_leaves_stay_as_they_are():
    assert leaves(0, 1)[0x8000_0002, 0].eax == 0x12345678


@pytest.mark.kvm
def test_the_host_s_own_table_is_left_alone():
    with Kvm() as kvm:
        host = kvm.supported_cpuid()
        before = bytes(ffi.buffer(host))
        for_vcpu(host, 1, 2)
        assert bytes(ffi.buffer(host)) == before
