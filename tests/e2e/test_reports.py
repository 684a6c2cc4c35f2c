"""Where a vCPU is: in the end of a machine that ended badly, and of one that is paused, under each CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shardio import Machine, VcpuError
from shardio.control import client
from shardio.errors import MachineError
from tests.e2e.support import PATIENCE_S, machine, until
from tests.guests.build import guest, program

pytestmark = pytest.mark.machine

NAME = f"report-{os.getpid()}"
MARK = 0x5A5A
LOOP = """
    .code16
    mov $0x5a5a, %bx
next:
    in $0x80, %al
    jmp next
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "guest.bin"
    file.write_bytes(program(LOOP))
    return file


def shardio_run(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "shardio", "run", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


def test_a_triple_fault_is_told_with_registers_and_instruction() -> None:
    with machine() as vm:
        vm.load(guest("triple_fault"))
        ended = vm.run(PATIENCE_S)

    report = ended.report
    assert report is not None
    assert (report.vcpu, report.state, report.mp_state, report.bits) == (0, "shutdown", "runnable", 32)
    assert (report.code, report.instruction) == (b"\x0f\x0b", "ud2")
    assert report.registers["rax"] == 0x10
    assert report.segments["cs"].selector == 8


def test_an_orderly_end_has_no_report() -> None:
    with machine() as vm:
        vm.load(program("    .code16\n    hlt\n"))
        vm.start()
        vm.stop()
        ended = vm.wait()

    assert ended is not None
    assert ended.report is None


def test_the_command_prints_it(tmp_path: Path, cpu: str) -> None:
    file = tmp_path / "guest.bin"
    file.write_bytes(guest("triple_fault"))

    done = shardio_run("--quiet", "--cpu", cpu, "--image", file)

    first, second, *rest = done.stderr.splitlines()
    assert done.returncode == 1
    assert first == "shardio: vCPU 0: shutdown: KVM_EXIT_SHUTDOWN"
    assert second == "vCPU 0: shutdown, runnable, 32-bit code"
    assert "rax=00000010" in rest[0]
    assert rest[-1] == "at 0x12b6: ud2   (0f 0b)"


def test_a_guest_that_is_late_is_told_with_where_it_is(image: Path, cpu: str) -> None:
    done = shardio_run("--cpu", cpu, "--image", image, "--timeout", "0.2")

    assert done.returncode == 124
    assert "shardio: the guest had not ended after 0.2 s\nvCPU 0: stopped, runnable, 16-bit" in done.stderr
    assert "rbx=" in done.stderr


def test_a_paused_vcpu_is_examined_here_and_through_the_control_socket() -> None:
    with _looping() as vm:
        entry = client.find(NAME)
        with pytest.raises(VcpuError, match=r"is running; pause\(\) the machine first"):
            vm.examine(0)
        with pytest.raises(MachineError, match="is running"):
            client.examine(entry, 0)
        vm.pause()

        here, there = vm.examine(0), client.examine(entry, 0)
        with pytest.raises(MachineError, match="no vCPU 7"):
            client.examine(entry, 7)

    assert here == there
    assert (here.state, here.registers["rbx"]) == ("paused", MARK)
    assert here.instruction in ("in al, 0x80", "jmp 0x1003")


def test_the_screen_is_told_through_the_control_socket() -> None:
    with _looping() as vm:
        entry = client.find(NAME)
        with pytest.raises(MachineError, match=r"has no screen; add shardio\.devices:VgaText"):
            client.screen(entry)
        vm.add("shardio.devices:VgaText")
        vm.memory.write(0xB_8000, b"h\x07i\x07\x1b\x07")  # 0x1b is an arrow there, and Escape elsewhere

        printed = subprocess.run(
            [sys.executable, "-m", "shardio", "screen", NAME],
            capture_output=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
        assert client.screen(entry) == "hi←"
    assert (printed.returncode, printed.stdout.decode()) == (0, "hi←\n")


def _looping() -> Machine:
    vm = machine()
    vm.load(program(LOOP))
    vm.control(NAME)
    vm.start()
    until(lambda: vm.statistics().vcpus[0].unclaimed_reads > 0, "the guest's first read")
    return vm
