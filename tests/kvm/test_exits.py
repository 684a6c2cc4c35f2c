"""Exits as typed values: each reason's details, from run pages made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from shardio._core import ffi, lib
from shardio.kvm.exits import IoExit, MmioExit, OtherExit, decode

PAGE = 8192


@pytest.fixture
def page() -> Any:
    """A run page: the memory first, which must live as long as the struct in it."""
    return ffi.new("uint8_t[]", PAGE)


def run_page(page: Any, name: str) -> Any:
    """The run page as a struct, with its exit reason set."""
    run = ffi.cast("struct kvm_run *", page)
    run.exit_reason = getattr(lib, name)
    return run


@pytest.mark.parametrize(("direction", "is_write"), [("KVM_EXIT_IO_IN", False), ("KVM_EXIT_IO_OUT", True)])
def test_a_port_string_s_data_is_a_view_of_the_run_page(page, direction, is_write):
    run = run_page(page, "KVM_EXIT_IO")
    run.io.direction = getattr(lib, direction)
    run.io.size, run.io.port, run.io.count, run.io.data_offset = 2, 0x3F8, 3, 4096
    found = decode(run)
    assert found == IoExit(0x3F8, 2, 3, is_write, memoryview(bytes(6)))
    found.data[:] = b"abcdef"
    assert bytes(page[4096:4102]) == b"abcdef"


@pytest.mark.parametrize("is_write", [False, True])
def test_an_mmio_exit_s_data_is_a_view_of_the_run_page(page, is_write):
    run = run_page(page, "KVM_EXIT_MMIO")
    run.mmio.phys_addr, run.mmio.len, run.mmio.is_write = 0xD000_0004, 4, is_write
    found = decode(run)
    assert found == MmioExit(0xD000_0004, 4, is_write, memoryview(bytes(4)))
    found.data[:] = b"wxyz"
    assert bytes(run.mmio.data[0:4]) == b"wxyz"


def test_fail_entry_tells_the_hardware_s_reason(page):
    run = run_page(page, "KVM_EXIT_FAIL_ENTRY")
    run.fail_entry.hardware_entry_failure_reason, run.fail_entry.cpu = 0x80000021, 3
    assert str(decode(run)) == "KVM_EXIT_FAIL_ENTRY (hardware_reason=0x80000021, cpu=0x3)"


def test_an_emulation_failure_tells_the_instruction(page):
    run = run_page(page, "KVM_EXIT_INTERNAL_ERROR")
    failure = run.emulation_failure
    failure.suberror, failure.ndata = lib.KVM_INTERNAL_ERROR_EMULATION, 3
    failure.flags = lib.KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES
    failure.insn_size = 2
    failure.insn_bytes[0:2] = b"\xdb\x2b"
    found = decode(run)
    assert isinstance(found, OtherExit)
    assert found.details["instruction"] == b"\xdb\x2b"
    assert "instruction=db 2b" in str(found)


def test_another_internal_error_tells_its_data(page):
    run = run_page(page, "KVM_EXIT_INTERNAL_ERROR")
    run.internal.suberror, run.internal.ndata = lib.KVM_INTERNAL_ERROR_DELIVERY_EV, 2
    run.internal.data[0], run.internal.data[1] = 0x10, 0x20
    found = decode(run)
    assert isinstance(found, OtherExit)
    assert found.details["data"] == (0x10, 0x20)
    assert found.details["meaning"] == "KVM_INTERNAL_ERROR_DELIVERY_EV"


@pytest.mark.parametrize("count", [17, 0xFFFF_FFFF])
def test_counts_past_their_arrays_are_cut(page, count):
    run = run_page(page, "KVM_EXIT_SYSTEM_EVENT")
    run.system_event.type, run.system_event.ndata = lib.KVM_SYSTEM_EVENT_RESET, count
    found = decode(run)
    assert isinstance(found, OtherExit)
    assert found.details == {"type": 2, "data": (0,) * 16}


@pytest.mark.parametrize("name", ["KVM_EXIT_HLT", "KVM_EXIT_SHUTDOWN", "KVM_EXIT_DEBUG"])
def test_a_reason_without_details_is_its_name(page, name):
    assert str(decode(run_page(page, name))) == name


def test_an_unknown_exit_tells_the_hardware_s_reason(page):
    run = run_page(page, "KVM_EXIT_UNKNOWN")
    run.hw.hardware_exit_reason = 0x99
    assert str(decode(run)) == "KVM_EXIT_UNKNOWN (hardware_reason=0x99)"


def test_an_eoi_tells_its_vector(page):
    run = run_page(page, "KVM_EXIT_IOAPIC_EOI")
    run.eoi.vector = 0x31
    assert str(decode(run)) == "KVM_EXIT_IOAPIC_EOI (vector=0x31)"
