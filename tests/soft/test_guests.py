"""The software CPU runs the guests that KVM runs: accesses, several vCPUs, ends."""

from __future__ import annotations

import os
import signal

import pytest

from shardio import MmioRange, MutDeviceMmio, PioRange
from shardio._core import lib
from shardio.errors import MachineError
from shardio.vcpu import VcpuState
from tests.fabric.support import Log
from tests.guests.build import guest
from tests.soft.rig import rig

PORT = 0x3F8
MMIO = 0xD000_0000
HLT = b"\xf4"


def text(device: Log) -> str:
    """What was written, a character a write."""
    return "".join(chr(value) for _, _, value in device.seen if value is not None)


def test_a_guest_says_hello() -> None:
    device = Log()
    with rig(guest("hello")) as r:
        r.add(device, PioRange(PORT, 8))

        assert r.run() == 0
    assert text(device) == "Hello from the guest\n"


@pytest.mark.parametrize("vcpus", [2, 4])
def test_every_vcpu_comes_up(vcpus: int) -> None:
    device = Log()
    with rig(guest("smp", VCPUS=vcpus), vcpus) as r:
        r.add(device, PioRange(PORT, 8))

        assert r.run() == 0
        assert [r.result(4, vcpu) for vcpu in range(vcpus)] == list(range(1, vcpus + 1))
    assert text(device) == "".join(f"cpu {number} up\n" for number in range(vcpus))


class Checksum(MutDeviceMmio):
    """FNV-1a over the 32-bit words written, as tests/e2e has it."""

    def __init__(self) -> None:
        self.hash = 0xCBF2_9CE4_8422_2325

    def read(self, offset: int, size: int) -> int:
        return self.hash >> (8 * offset)

    def write(self, offset: int, size: int, value: int) -> None:
        for octet in value.to_bytes(size, "little"):
            self.hash = (self.hash ^ octet) * 0x100_0000_01B3 & (1 << 64) - 1


@pytest.mark.parametrize("posted", [False, True])
@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_every_write_arrives_once_and_in_order(vcpus: int, posted: bool) -> None:
    devices = [Checksum() for _ in range(2 * vcpus)]
    with rig(guest("checksum", VCPUS=vcpus, COUNT=50), vcpus) as r:
        for number, device in enumerate(devices):
            r.add(device, MmioRange(MMIO + 0x1000 * number, 0x1000), posted=posted)

        r.run()
        found = [r.result(8 + 8 * (n % 2), n // 2, 8) for n in range(2 * vcpus)]

    expected = []
    for vcpu in range(vcpus):
        state, models = (vcpu + 1) * 0x9E37_79B9 & 0xFFFF_FFFF, [Checksum(), Checksum()]
        for _ in range(50):
            for model in models:
                state = (state * 1664525 + 1013904223) & 0xFFFF_FFFF
                model.write(0, 4, state)
        expected += [model.hash for model in models]
    assert found == expected


@pytest.mark.parametrize("write", [0, 1])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_widths_of_port_accesses(width: int, write: int) -> None:
    device = Log([0x1234_5678] * 3)
    with rig(guest("pio_loop", COUNT=3, WIDTH=width, WRITE=write, PORT=PORT)) as r:
        r.add(device, PioRange(PORT, 8))
        r.run()
        last = r.result(4)

    values = [3, 2, 1] if write else [None] * 3
    assert device.seen == [(0, width, value) for value in values]
    assert write or last == 0x1234_5678 & (1 << 8 * width) - 1


@pytest.mark.parametrize("width", [1, 2, 4])
def test_strings_go_element_by_element(width: int) -> None:
    out, into = Log(), Log(range(1, 9))
    with rig(guest("rep_outsb", COUNT=8, WIDTH=width, PORT=PORT)) as r:
        r.memory.write(0x3_0000, bytes(range(8 * width)))
        r.add(out, PioRange(PORT, 8))
        r.run()
    with rig(guest("rep_insb", COUNT=8, WIDTH=width, PORT=PORT)) as r:
        r.add(into, PioRange(PORT, 8))
        r.run()
        read = r.memory.read(0x3_0000, 8 * width)

    octets = bytes(range(8 * width))
    words = [int.from_bytes(octets[at : at + width], "little") for at in range(0, 8 * width, width)]
    assert out.seen == [(0, width, word) for word in words]
    assert read == b"".join(n.to_bytes(width, "little") for n in range(1, 9))


def test_an_access_across_a_page_is_two() -> None:
    device = Log()
    with rig(guest("page_cross_mmio")) as r:
        r.add(device, MmioRange(MMIO, 0x2000))
        r.start()
        r.until(lambda: len(device.seen) >= 2, "no two accesses")

    (first, size, _), (second, rest, _) = device.seen[:2]
    assert (first + size, second) == (0x1000, 0x1000)
    assert size + rest == 4


def test_nobody_there_reads_all_ones_and_drops_writes() -> None:
    with rig(guest("unclaimed")) as r:
        r.start()
        r.until(lambda: r.workers[0].statistics(0).unclaimed_writes > 0, "no write")


def test_a_triple_fault_ends_the_vcpu() -> None:
    with rig(guest("triple_fault")) as r:
        r.start()
        r.until_state(VcpuState.SHUTDOWN)


def test_hlt_without_an_interrupt_controller_ends_the_vcpu() -> None:
    with rig(guest("hlt"), irqchip=False) as r:
        r.start()
        r.until_state(VcpuState.HALTED)

        assert r.workers[0].wait_for_death() == 0
        assert r.workers[0].statistics(0).exits == {"HLT": 1}


def test_an_instruction_that_does_not_exist_reaches_the_guests_handler() -> None:
    # Vector 6 of the real-mode table leads to `hlt` at 0:0x600.
    with rig(b"\x0f\x0b" + b"\xeb\xfe", irqchip=False) as r:
        r.memory.write(6 * 4, (0x600).to_bytes(4, "little"))
        r.memory.write(0x600, HLT)
        r.start()
        r.until_state(VcpuState.HALTED)


def test_code_where_nothing_is_ends_the_vcpu_with_the_reason() -> None:
    # ljmpl to 0xD0000000 would need protected mode: `jmp` through a register in a flat segment does it.
    with rig(irqchip=False) as r:
        r.memory.write(0x1000, b"\xb8" + MMIO.to_bytes(4, "little") + b"\xff\xe0")
        r.machine.set_entry("protected", 0x1000)
        r.start()
        r.until_state(VcpuState.FAILED)


def test_pause_resume_and_stop() -> None:
    device = Log()
    with rig(b"\xfe\xc0\xe6\x80\xeb\xfa", irqchip=False) as r:  # inc al; out al, 0x80; again
        r.add(device, PioRange(0x80, 1))
        worker = r.workers[0]
        r.start()
        r.until(lambda: len(device.seen) > 10, "it does not run")
        worker.command(lib.SIO_PAUSE)
        r.until_state(VcpuState.PAUSED)
        paused = len(device.seen)
        shown = worker.cpu.shown.gpr[0]
        worker.command(lib.SIO_RUN)
        r.until(lambda: len(device.seen) > paused + 10, "it does not go on")
        worker.command(lib.SIO_STOP)
        r.until_state(VcpuState.STOPPED)

        assert worker.wait_for_death() == 0
    values = [value for _, _, value in device.seen]
    assert values == [n % 256 for n in range(1, len(values) + 1)]
    assert shown & 0xFF in ((paused - 1) % 256, paused % 256, (paused + 1) % 256)


@pytest.mark.parametrize("number", [lib.SIO_KICK_SIGNAL, signal.SIGINT])
def test_a_signal_does_not_end_a_worker_that_is_not_ready_yet(number: int) -> None:
    with rig(b"\xeb\xfe", irqchip=False) as r:  # jmp .
        worker = r.workers[0]
        r.start()
        os.kill(worker.pid, number)
        worker.command(lib.SIO_PAUSE)
        r.until_state(VcpuState.PAUSED)

        assert worker.reap() is None


@pytest.mark.parametrize(("mode", "entry"), [("long", 0x1000), ("real", 1 << 20), ("protected", 1 << 32)])
def test_entries_that_it_cannot_take_are_refused_by_name(mode: str, entry: int) -> None:
    with rig(irqchip=False) as r, pytest.raises(MachineError, match=f"{mode} mode"):
        r.machine.set_entry(mode, entry)
