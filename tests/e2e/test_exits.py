"""Every reason why a vCPU leaves the guest: handled, or reported by name."""

from __future__ import annotations

import hashlib

import pytest

from shardio import Machine
from shardio.devices import Checksum
from shardio.dispatcher import ExitInfo
from shardio.vcpu import VcpuState
from tests.e2e.devices import Ascending, Recorder
from tests.e2e.support import MMIO, PATIENCE_S, add_exit_port, fragments, machine, result
from tests.guests.build import buffer_address, guest

pytestmark = pytest.mark.machine

VALUE = 0x8877665544332211
ENDED = ExitInfo("exit", status=0)


def run(vm: Machine) -> ExitInfo | None:
    """Starts, and waits for the end. The shards live on."""
    vm.start()
    return vm.wait(PATIENCE_S)


def cut(value: int, size: int) -> int:
    """The low `size` bytes."""
    return value & ((1 << 8 * size) - 1)


# ---- ends ----


def test_hlt_without_an_irqchip_halts_the_machine() -> None:
    with machine(irqchip=False) as vm:
        vm.load(guest("hlt"))
        ended = run(vm)
        statistics = vm.statistics()
    assert ended == ExitInfo("halted", vcpu=0)
    assert statistics.vcpus[0].exits == {"HLT": 1}
    assert statistics.vcpus[0].state is VcpuState.HALTED


def test_a_machine_has_halted_when_all_its_vcpus_have() -> None:
    with machine(vcpus=2, irqchip=False) as vm:
        vm.load(guest("hlt"))
        ended = run(vm)
        exits = [vcpu.exits for vcpu in vm.statistics().vcpus]
    assert ended is not None
    assert ended.reason == "halted"
    assert exits == [{"HLT": 1}] * 2


def test_triple_fault_is_a_shutdown() -> None:
    with machine() as vm:
        vm.load(guest("triple_fault"))
        ended = run(vm)
        exits = vm.statistics().vcpus[0].exits
    assert ended is not None
    assert (ended.reason, ended.vcpu) == ("shutdown", 0)
    assert "SHUTDOWN" in ended.detail
    assert exits == {"SHUTDOWN": 1}


@pytest.mark.kvm
def test_an_instruction_that_kvm_cannot_emulate_fails_with_bytes_and_registers() -> None:
    with machine() as vm:
        vm.load(guest("bad_instruction"))
        vm.add(Recorder, mmio=MMIO, size=0x1000)
        ended = run(vm)
    assert ended is not None
    assert (ended.reason, ended.vcpu) == ("failed", 0)
    detail = ended.detail.lower()
    assert "kvm_exit_internal_error" in detail
    assert "emulation" in detail
    assert "db2b" in detail.replace(" ", "").replace("\\x", "")
    assert "rip" in detail
    assert f"{MMIO:x}" in detail  # RBX


@pytest.mark.parametrize("vcpus", [2, 4])
def test_aps_that_wait_for_their_sipi_come_up_in_order(vcpus: int) -> None:
    with machine(vcpus=vcpus, shards=2) as vm:
        vm.load(guest("smp", VCPUS=vcpus))
        console = vm.add(Recorder, pio=0x3F8, size=8, shard="serial")
        add_exit_port(vm, shard="exit")
        ended = run(vm)
        text = bytes(value for _, _, _, value in console.call("log")).decode()
        numbers = [result(vm, 4, vcpu) for vcpu in range(vcpus)]
    assert ended == ENDED
    assert text == "".join(f"cpu {vcpu} up\n" for vcpu in range(vcpus))
    assert numbers == list(range(1, vcpus + 1))


# ---- widths ----


@pytest.mark.kvm
@pytest.mark.parametrize("posted", [False, True], ids=["waiting", "posted"])
def test_mmio_of_1_2_4_and_8_bytes(posted: bool) -> None:
    with machine(shards=1) as vm:
        vm.load(guest("mmio_widths"), mode="long")
        device = vm.add(Recorder, mmio=MMIO, size=0x1000, posted=posted)
        add_exit_port(vm)
        ended = run(vm)
        log = device.call("log")
        read = [result(vm, 8 + 8 * index, size=8) for index in range(4)]
    values = [cut(VALUE, size) for size in (1, 2, 4, 8)]
    places = list(zip((0, 8, 16, 24), (1, 2, 4, 8), values, strict=True))
    assert ended == ENDED
    assert log == [[1, *place] for place in places] + [[0, *place] for place in places]
    assert read == values


@pytest.mark.parametrize("width", [1, 2, 4])
def test_pio_writes_of_each_width(width: int) -> None:
    with machine(shards=1) as vm:
        vm.load(guest("pio_loop", COUNT=3, PORT=0x210, WIDTH=width))
        device = vm.add(Recorder, pio=0x200, size=0x20)
        add_exit_port(vm)
        ended = run(vm)
        log = device.call("log")
    assert ended == ENDED
    assert log == [[1, 0x10, width, left] for left in (3, 2, 1)]


@pytest.mark.parametrize("width", [1, 2, 4])
def test_pio_reads_of_each_width(width: int) -> None:
    with machine(shards=1) as vm:
        vm.load(guest("pio_loop", COUNT=3, PORT=0x210, WIDTH=width, WRITE=0))
        vm.add(Ascending, pio=0x210)
        add_exit_port(vm)
        ended = run(vm)
        read = result(vm, 4)
    assert ended == ENDED
    assert read == 3


# ---- accesses across a page's end ----


def value_at(value: int, first: int, at: int, size: int) -> int:
    """The part of a value at `first` that lies in `size` bytes at `at`."""
    return cut(value >> 8 * (at - first), size)


# By `shift` 3+1, 2+2 and 1+3 bytes.
@pytest.mark.parametrize(("shift", "posted"), [(-1, False), (0, True), (0, False), (1, True)])
def test_four_bytes_across_a_page_end(shift: int, posted: bool) -> None:
    with machine(shards=1) as vm:
        vm.load(guest("page_cross_mmio", PAGE=MMIO + shift))
        device = vm.add(Recorder, mmio=MMIO, size=0x2000, posted=posted)
        add_exit_port(vm)
        ended = run(vm)
        log = device.call("log")
        read = result(vm, 4)
    first = 0xFFE + shift
    parts = [[at, size, value_at(cut(VALUE, 4), first, at, size)] for at, size in fragments(first, 4)]
    assert ended == ENDED
    assert log == [[1, *part] for part in parts] + [[0, *part] for part in parts]
    assert read == cut(VALUE, 4)


@pytest.mark.kvm
@pytest.mark.parametrize("head", range(1, 8))
def test_eight_bytes_across_a_page_end(head: int) -> None:
    first = 0x1000 - head
    with machine(shards=1) as vm:
        vm.load(guest("mmio_widths", ADDRESS=MMIO + first - 24), mode="long")
        device = vm.add(Recorder, mmio=MMIO, size=0x2000)
        add_exit_port(vm)
        ended = run(vm)
        log = device.call("log")
        read = result(vm, 32, size=8)
    parts = [[at, size, value_at(VALUE, first, at, size)] for at, size in fragments(first, 8)]
    assert ended == ENDED
    assert log[3 : 3 + len(parts)] == [[1, *part] for part in parts]
    assert log[-len(parts) :] == [[0, *part] for part in parts]
    assert read == VALUE


# ---- nobody there ----


def test_unclaimed_reads_are_all_ones_and_writes_are_dropped(cpu: str) -> None:
    with machine(shards=1) as vm:
        vm.load(guest("unclaimed"))
        add_exit_port(vm)
        ended = run(vm)
        read = [result(vm, offset) for offset in range(4, 32, 4)]
        vcpu = vm.statistics().vcpus[0]
    ones = [0xFF, 0xFFFF, 0xFFFFFFFF]
    assert ended == ENDED
    assert read == [*ones, *ones, 0xFFFFFFFF]
    # KVM leaves the guest once for the string of four; the software CPU goes element by element.
    string = {"kvm": 1, "soft": 4}[cpu]
    assert (vcpu.unclaimed_reads, vcpu.unclaimed_writes, vcpu.crossing) == (6 + string, 6, 0)


def test_an_access_past_its_range_s_end_is_refused_and_counted_apart() -> None:
    with machine(shards=1) as vm:
        vm.load(guest("unclaimed", PORT=0x700))
        device = vm.add(Recorder, pio=0x6FF, size=2)
        add_exit_port(vm)
        ended = run(vm)
        log = device.call("log")
        vcpu = vm.statistics().vcpus[0]
    assert ended == ENDED
    assert [access[:3] for access in log] == [[1, 1, 1], [0, 1, 1]] + [[0, 1, 1]] * 4
    assert vcpu.crossing == 4  # two writes and two reads, of two and of four bytes
    assert (vcpu.unclaimed_reads, vcpu.unclaimed_writes) == (3, 3)


# ---- strings ----


@pytest.mark.parametrize(("width", "posted"), [(1, True), (1, False), (2, True), (4, False)])
def test_rep_outs_of_4096_bytes(width: int, posted: bool) -> None:
    sent = b"".join(hashlib.sha512(bytes([i])).digest() for i in range(64))
    with machine(shards=1) as vm:
        vm.load(guest("rep_outsb", COUNT=4096 // width, WIDTH=width, PORT=0x100, ROUNDS=2))
        vm.memory.write(buffer_address(0), sent)
        device = vm.add(Checksum, pio=0x100, posted=posted)
        add_exit_port(vm)
        ended = run(vm)
        value, length, writes = (device.call("read", offset, 8) for offset in (0, 8, 16))
    expected = Checksum()
    for at in range(0, 2 * 4096, width):
        expected.write(0, width, int.from_bytes((sent * 2)[at : at + width], "little"))
    assert ended == ENDED
    assert (value, length, writes) == (expected.value, 2 * 4096, 2 * 4096 // width)


@pytest.mark.kvm
@pytest.mark.parametrize("width", [1, 2, 4])
def test_rep_ins_of_4096_bytes(width: int) -> None:
    count = 4096 // width
    with machine(shards=1) as vm:
        vm.load(guest("rep_insb", COUNT=count, WIDTH=width, PORT=0x100, ROUNDS=2))
        vm.add(Ascending, pio=0x100)
        add_exit_port(vm)
        ended = run(vm)
        got = vm.memory.read(buffer_address(0), 4096)
        vcpu = vm.statistics().vcpus[0]
    numbers = range(count + 1, 2 * count + 1)
    assert ended == ENDED
    assert got == b"".join(cut(number, width).to_bytes(width, "little") for number in numbers)
    assert vcpu.string_exits >= 1
