"""GDB itself, in batch mode, at guests of `Machine.gdb` and of `shardio run --gdb`."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.support import PATIENCE_S, add_exit_port, command, machine, result
from tests.guests.build import LOAD_ADDRESS, elf32, guest, guest_symbols, result_address

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(shutil.which("gdb") is None, reason="needs GDB: apt-get install gdb"),
]

QUIET = ("set pagination off", "set confirm off", "set remotetimeout 20", "set breakpoint pending off")


def gdb(elf: Path, address: object, *commands: str) -> str:
    """What GDB prints; it comes to a stub at `address` first."""
    words = [word for each in (*QUIET, f"target remote {address}", *commands) for word in ("-ex", each)]
    line = ["gdb", "-nx", "-batch", *words, str(elf)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return done.stdout + done.stderr


def test_symbols_registers_memory_steps_and_watchpoints(tmp_path: Path) -> None:
    elf, bumps, word = elf32("debugged", tmp_path), result_address(0, 4), result_address(0, 8)
    with machine(irqchip=False, shards=1) as vm:
        vm.load(guest("debugged"))
        add_exit_port(vm)
        server = vm.gdb(f"unix:{tmp_path / 'gdb'}", wait=True)
        vm.start()
        said = gdb(
            elf, server.address,
            "break bump", "continue", "info registers eip ecx cs eflags", f"print *(int *){bumps}",
            "stepi", f"print *(int *){bumps}", "stepi", "info symbol $pc",
            "delete", f"watch *(int *){word}", "set var $ecx = 2", "continue", "info registers eip",
            "delete", "hbreak *$pc + 5", "continue", "x/i $pc", "info threads", "delete", "continue",
        )  # fmt: skip
        ended, bumped = vm.wait(PATIENCE_S), result(vm, 4)
    assert "Breakpoint 1, bump ()" in said, said
    assert re.search(r"ecx +0x3 ", said), said
    assert "$1 = 0\n" in said, said
    assert "$2 = 1\n" in said, said
    assert "again + 5" in said, said
    assert re.search(r"Hardware watchpoint \d+: .*\n+Old value = 0\nNew value = 7", said), said
    assert f"eip            {guest_symbols('debugged')['bumped']:#x}" in said, said
    assert re.search(r"Breakpoint \d+, 0x[0-9a-f]+ .*bumped|Breakpoint \d+, bumped", said), said
    assert "vCPU 0" in said, said
    assert "exited normally" in said, said
    assert ended is not None
    assert (ended.status, bumped) == (0, 2)  # ECX was set to 2 after the first: one more


def test_two_vcpus_are_two_threads(tmp_path: Path) -> None:
    elf = elf32("debugged", tmp_path, VCPUS=2)
    with machine(vcpus=2, shards=1) as vm:
        vm.load(guest("debugged", VCPUS=2))
        add_exit_port(vm)
        server = vm.gdb("127.0.0.1:0", wait=True)
        vm.start()
        said = gdb(
            elf, server.address,
            "info threads", "break bump", "continue", "continue", "thread apply all print $ebp", "delete",
            "continue",
        )  # fmt: skip
        results = [result(vm, 4, vcpu) for vcpu in range(2)]
    assert re.search(r"\* 1 .*vCPU 0.*\n +2 .*vCPU 1", said), said
    assert said.count("hit Breakpoint 1, bump ()") == 2, said
    assert "exited normally" in said, said
    assert results == [3, 3]


def test_the_command_waits_for_gdb_whose_kill_ends_the_machine(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(guest("debugged"))
    elf, where = elf32("debugged", tmp_path), tmp_path / "gdb"
    words = ("run", "--image", tmp_path / "image", "--gdb", f"unix:{where}", "--gdb-wait")
    with command(*words, "--no-irqchip", "--quiet") as running:
        assert running.stderr is not None
        line = running.stderr.readline().decode()
        assert line == (
            "shardio: a debugger can come, and the guest waits for it: "
            f"(gdb) target remote {where}\n"
        )  # fmt: skip
        said = gdb(elf, where, "info registers eip", "kill")
        assert running.wait(PATIENCE_S) == 0
    assert f"{LOAD_ADDRESS:#x}" in said, said
    assert not where.exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--gdb", "nowhere"), "'nowhere' is no address for a debugger (write unix:PATH"),
        (("--gdb-wait",), "--gdb-wait without --gdb (say where the debugger comes: --gdb :1234)"),
    ],
)
def test_a_command_line_that_makes_no_debugger(
    tmp_path: Path, words: tuple[str, ...], complaint: str
) -> None:
    (tmp_path / "image").write_bytes(guest("debugged"))
    with command("run", "--image", tmp_path / "image", *words) as running:
        _, errors = running.communicate(timeout=PATIENCE_S)
    assert complaint in errors.decode()
    assert running.returncode == 2


def test_ctrl_c_of_the_command_ends_a_guest_that_waits_for_gdb(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(guest("debugged"))
    with command("run", "--image", tmp_path / "image", "--gdb", ":0", "--gdb-wait", "--quiet") as running:
        assert running.stderr is not None
        assert b"127.0.0.1:" in running.stderr.readline()
        running.send_signal(signal.SIGINT)
        assert running.wait(PATIENCE_S) == 128 + signal.SIGINT
