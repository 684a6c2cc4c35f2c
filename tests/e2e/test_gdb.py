"""A debugger at a guest: packets of GDB's remote protocol, on each kind of CPU."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shardio import Machine
from shardio.dispatcher import ExitInfo
from shardio.errors import DebuggerError, MachineError
from shardio.kvm.repairs import emulates
from shardio.vcpu import VcpuState
from tests.e2e.support import PATIENCE_S, add_exit_port, machine, result, until
from tests.gdb.client import Client, connected
from tests.guests.build import LOAD_ADDRESS, guest, guest_symbols, result_address

pytestmark = pytest.mark.machine

NOP, HLT, JMP_SELF = b"\x90", b"\xf4", b"\xeb\xfe"
MOV_AX_1234 = b"\xb8\x34\x12"
MOV_MEMORY_AL = b"\xa2\x00\x30"
"""mov [0x3000], al in real mode."""
COUNT_FOR_EVER = b"\x66\xff\x06\x00\x30\xeb\xf9"
"""inc dword [0x3000]; jmp to it, in real mode."""
COUNTER = 0x3000
OUT_AL = b"\xe6\xf4"
STOPPED_BY_USER, TRAPPED, FAULTED = "T02", "T05", "T0b"
CAME = "T05thread:1;"
"""What a debugger that has come is told."""


@contextmanager
def debugged(
    tmp_path: Path, image: bytes, *, wait: bool = True, **options: object
) -> Iterator[tuple[Machine, Client]]:
    """A machine that runs `image` from real mode, and a debugger that has come to it."""
    where = f"unix:{tmp_path / 'gdb'}"
    with machine(**{"irqchip": False, "shards": 1, **options}) as vm:
        vm.load(image)
        add_exit_port(vm)
        vm.gdb(where, wait=wait)
        vm.start()
        with connected(where) as gdb:
            gdb.ask("qSupported:swbreak+;hwbreak+;vContSupported+")
            yield vm, gdb


def go(gdb: Client, packet: str = "vCont;c") -> str:
    """Let the guest go on, until it stops."""
    return gdb.ask(packet)


def test_the_first_instruction_waits_for_the_debugger(tmp_path: Path) -> None:
    with debugged(tmp_path, MOV_AX_1234 + OUT_AL) as (vm, gdb):
        assert gdb.ask("?") == CAME
        assert gdb.registers()["eip"] == LOAD_ADDRESS
        assert vm.vcpu(0).state is VcpuState.ASKING
        assert go(gdb) == "W34"
        assert vm.wait(PATIENCE_S) == ExitInfo("exit", status=0x34)


def test_steps_breakpoints_registers_and_memory(tmp_path: Path) -> None:
    with debugged(tmp_path, MOV_AX_1234 + NOP * 3 + OUT_AL) as (vm, gdb):
        assert go(gdb, "vCont;s:1").startswith(TRAPPED)
        assert (gdb.registers()["eip"], gdb.registers()["eax"]) == (LOAD_ADDRESS + 3, 0x1234)
        assert gdb.ask(f"Z0,{LOAD_ADDRESS + 5:x},1") == "OK"
        assert gdb.ask(f"m{LOAD_ADDRESS + 3:x},5") == (NOP * 3 + OUT_AL).hex()  # it does not show
        assert go(gdb) == "T05swbreak:;thread:1;"
        assert gdb.registers()["eip"] == LOAD_ADDRESS + 5
        assert gdb.ask(f"z0,{LOAD_ADDRESS + 5:x},1") == "OK"
        assert vm.memory.read(LOAD_ADDRESS + 3, 3) == NOP * 3
        assert gdb.ask("P0=78000000") == "OK"
        assert gdb.ask("p0") == "78000000"
        assert gdb.ask(f"M{COUNTER:x},4:01020304") == "OK"
        assert gdb.ask(b"X3004,3:a}\x03b") == "OK"  # an escaped "#"
        assert vm.memory.read(COUNTER, 7) == b"\1\2\3\4a#b"
        assert go(gdb, "c") == "W78"


def test_a_breakpoint_in_a_debug_register_holds_again_and_again(tmp_path: Path) -> None:
    with debugged(tmp_path, NOP + COUNT_FOR_EVER) as (_, gdb):
        assert gdb.ask(f"Z1,{LOAD_ADDRESS + 1:x},1") == "OK"
        for count in range(3):
            assert go(gdb) == "T05hwbreak:;thread:1;"
            assert (gdb.registers()["eip"], gdb.word(COUNTER)) == (LOAD_ADDRESS + 1, count)


def test_writes_to_watched_memory_stop_behind_the_instruction(tmp_path: Path) -> None:
    with debugged(tmp_path, MOV_AX_1234 + NOP * 4 + MOV_MEMORY_AL + JMP_SELF) as (_, gdb):
        assert gdb.ask(f"Z2,{COUNTER:x},1") == "OK"
        assert go(gdb) == f"T05watch:{COUNTER:x};thread:1;"
        assert gdb.registers()["eip"] == LOAD_ADDRESS + 10
        assert gdb.ask(f"m{COUNTER:x},1") == "34"
        assert gdb.ask(f"z2,{COUNTER:x},1") == "OK"


@pytest.mark.kvm
@pytest.mark.skipif(not emulates(), reason="this processor's debug registers see reads")
def test_reads_of_watched_memory_are_refused_where_nobody_sees_them(tmp_path: Path) -> None:
    with debugged(tmp_path, JMP_SELF) as (_, gdb):
        for kind in "34":
            answer = gdb.ask(f"Z{kind},{COUNTER:x},1")
            assert answer == "E.vCPU 0: reads are not seen where KVM emulates the guest"


@pytest.mark.kvm
def test_a_guest_in_long_mode_is_an_x86_64(tmp_path: Path) -> None:
    where = f"unix:{tmp_path / 'gdb'}"
    with machine(irqchip=False, shards=1) as vm:
        vm.load(b"\x48\xb8" + bytes(range(1, 9)) + JMP_SELF, mode="long")  # mov rax, 0x0807060504030201
        vm.gdb(where, wait=True)
        vm.start()
        with connected(where) as gdb:
            description = gdb.ask("qXfer:features:read:target.xml:0,1000")
            assert "<architecture>i386:x86-64</architecture>" in description
            assert gdb.ask("vCont;s:1").startswith(TRAPPED)
            assert gdb.ask("p0") == bytes(range(1, 9)).hex()
            assert gdb.ask("p10") == (LOAD_ADDRESS + 10).to_bytes(8, "little").hex()
            assert gdb.ask("P0=1122334455667788") == "OK"
            assert vm.vcpu(0).registers["rax"] == 0x8877665544332211
            assert gdb.ask(f"m{LOAD_ADDRESS:x},2") == "48b8"
            assert gdb.ask("m7fffffffffff0000,2").startswith("E.")  # the guest's page tables do not map it


def test_a_step_over_an_access_ends_behind_it(tmp_path: Path) -> None:
    image = b"\xe4\x80" + NOP + b"\xe6\x80" + NOP * 2 + JMP_SELF  # in al, 0x80; nop; out 0x80, al
    with debugged(tmp_path, image) as (_, gdb):
        seen = []
        for _ in range(4):
            assert go(gdb, "s").startswith(TRAPPED)
            seen.append(gdb.registers()["eip"] - LOAD_ADDRESS)
    assert seen == [2, 3, 5, 6]


def test_a_running_guest_is_interrupted_and_goes_on_when_the_debugger_detaches(tmp_path: Path) -> None:
    with debugged(tmp_path, COUNT_FOR_EVER, wait=False) as (vm, gdb):
        assert gdb.ask("?") == CAME
        gdb.send("c")
        gdb.socket.sendall(b"\x03")
        assert gdb.receive().startswith(STOPPED_BY_USER)
        assert gdb.ask(f"Z0,{LOAD_ADDRESS:x},1") == "OK"
        seen = gdb.word(COUNTER)
        assert gdb.ask("D") == "OK"
        until(lambda: int.from_bytes(vm.memory.read(COUNTER, 4), "little") > seen + 10, "it goes on")
        assert vm.memory.read(LOAD_ADDRESS, len(COUNT_FOR_EVER)) == COUNT_FOR_EVER


def test_a_debugger_that_vanishes_has_detached_and_another_may_come(tmp_path: Path) -> None:
    with debugged(tmp_path, COUNT_FOR_EVER) as (vm, gdb):
        assert gdb.ask(f"Z0,{LOAD_ADDRESS + 5:x},1") == "OK"
        gdb.socket.close()
        until(lambda: int.from_bytes(vm.memory.read(COUNTER, 4), "little") > 10, "it goes on")
        with connected(f"unix:{tmp_path / 'gdb'}") as second:
            assert second.ask("?") == CAME


def test_a_second_debugger_is_turned_away(tmp_path: Path) -> None:
    with debugged(tmp_path, JMP_SELF) as (_, gdb):
        assert gdb.ask("?") == CAME
        with connected(f"unix:{tmp_path / 'gdb'}") as second, pytest.raises((ConnectionError, OSError)):
            second.ask("?")
        assert gdb.ask("qC") == "QC1"


@pytest.mark.parametrize(("packet", "answer"), [("k", None), ("vKill;1", "OK")])
def test_a_kill_ends_the_machine(tmp_path: Path, packet: str, answer: str | None) -> None:
    with debugged(tmp_path, JMP_SELF) as (vm, gdb):
        gdb.send(packet)
        if answer is not None:
            assert gdb.receive() == answer
        assert vm.wait(PATIENCE_S) == ExitInfo("stopped")


def test_a_worker_that_is_killed_at_a_breakpoint_is_at_it_still(tmp_path: Path) -> None:
    with debugged(tmp_path, NOP * 3 + COUNT_FOR_EVER) as (vm, gdb):
        assert gdb.ask(f"Z0,{LOAD_ADDRESS + 3:x},1") == "OK"
        assert go(gdb).startswith(TRAPPED)
        os.kill(vm.statistics().vcpus[0].pid, signal.SIGKILL)
        until(lambda: vm.statistics().vcpus[0].spawns == 2, "another worker")
        assert gdb.registers()["eip"] == LOAD_ADDRESS + 3
        assert gdb.ask(f"z0,{LOAD_ADDRESS + 3:x},1") == "OK"
        assert go(gdb, "s").startswith(TRAPPED)
        assert (gdb.word(COUNTER), vm.statistics().vcpus[0].spawns) == (1, 2)


def test_a_machine_at_a_breakpoint_can_be_paused_and_resumed_and_no_watch_blames_anybody(
    tmp_path: Path,
) -> None:
    with debugged(tmp_path, COUNT_FOR_EVER, hang_deadline=0.1) as (vm, gdb):
        assert gdb.ask("?") == CAME
        vm.pause(5)
        vm.resume(5)
        began = time.monotonic()
        until(lambda: gdb.ask("qC") == "QC1" and time.monotonic() > began + 0.4, "longer than the deadline")
        assert [shard.spawns for shard in vm.statistics().shards] == [1]
        vm.pause(5)
        gdb.send("c")
        until(lambda: vm.vcpu(0).state is VcpuState.PAUSED, "it parks")
        vm.resume(5)
        gdb.socket.sendall(b"\x03")
        assert gdb.receive().startswith(STOPPED_BY_USER)


def test_a_guest_that_ends_by_a_triple_fault_is_looked_at_first(tmp_path: Path) -> None:
    with debugged(tmp_path, guest("triple_fault")) as (vm, gdb):
        assert go(gdb).startswith(FAULTED)
        gdb.send("c")
        ended = vm.wait(PATIENCE_S)
        assert ended is not None
        assert ended.reason == "shutdown"


def test_vcpus_are_threads(tmp_path: Path) -> None:
    symbols = guest_symbols("debugged")
    with debugged(tmp_path, guest("debugged", VCPUS=2), vcpus=2, irqchip=True) as (vm, gdb):
        assert gdb.ask("qfThreadInfo") == "m1,2"
        assert bytes.fromhex(gdb.ask("qThreadExtraInfo,2")).startswith(b"vCPU 1")
        assert gdb.ask(f"Z0,{symbols['bump']:x},1") == "OK"
        seen = set()
        for _ in range(2):
            stop = go(gdb)
            assert stop.startswith("T05swbreak")
            thread = int(stop.rpartition("thread:")[2].rstrip(";"), 16)
            seen.add(gdb.registers()["ebp"] + 1 == thread)
            assert gdb.ask(f"z0,{symbols['bump']:x},1") == "OK"
            assert go(gdb, f"vCont;s:{thread:x}").endswith(f"thread:{thread:x};")
            assert gdb.word(result_address(thread - 1, 4)) == 1 or _ > 0
            assert gdb.ask(f"Z0,{symbols['bump']:x},1") == "OK"
        assert seen == {True}
        assert gdb.ask(f"z0,{symbols['bump']:x},1") == "OK"
        assert go(gdb) == "W00"
        assert [result(vm, 4, vcpu) for vcpu in range(2)] == [3, 3]


HOSTILE = (
    "m", "m1", "mzz,4", "m0,-1", "mffffffffffffffffff,1", "M0,1", "M0,1:zz", "M0,2:00", "X", "X0,4:a", "G",
    "Gz", "P", "Pff=00", "P0=", "pffff", "p", "Z0", "Z0,,", "Z9,0,1", "Z1,x,1", "z0,q,1", "vCont", "vCont;",
    "vCont;x", "vCont;s:9", "vCont;c:zz", "Hg99", "H", "Hq1", "T", "Tff", "qXfer:features:read:none:0,10",
    "qXfer:features:read:target.xml:zz", "qXfer", "qThreadExtraInfo,ffff", "qRcmd,zz", "v", "vFile:open",
    "Q", "J", "c zz", "s!", "", "\x7f", "Z2,3000,3000000", "Hg-5", "vCont;c:-9", "P0=ffffffffffffffffffff",
)  # fmt: skip


def test_packets_that_make_no_sense_get_an_error_or_an_empty_answer(tmp_path: Path) -> None:
    with debugged(tmp_path, NOP * 2 + JMP_SELF) as (_, gdb):
        answers = {packet: gdb.ask(packet) for packet in HOSTILE}
        odd = {p: a for p, a in answers.items() if a and not a.startswith(("E", "l", "m", "6e", "OK"))}
        assert odd == {}
        assert gdb.ask(b"m\xff\xff").startswith("E")
        gdb.socket.sendall(b"$g#00")  # a wrong checksum: NACK, and nothing else
        assert gdb.socket.recv(1) in (b"-", b"+")
        assert gdb.registers()["eip"] == LOAD_ADDRESS


def test_memory_that_is_no_ram_is_an_error_and_what_is_there_is_given(tmp_path: Path) -> None:
    with debugged(tmp_path, JMP_SELF) as (vm, gdb):
        size = vm.memory.size
        assert gdb.ask("md0000000,4").startswith("E")
        assert gdb.ask("Md0000000,1:00").startswith("E")
        assert gdb.ask(f"m{size - 2:x},4") == "0000"
        assert gdb.ask(f"M{size - 2:x},4:01020304").startswith("E")
        assert vm.memory.read(size - 2, 2) == b"\0\0"
        assert gdb.ask("Zd0000000,1").startswith("E") or gdb.ask("Z0,d0000000,1").startswith("E")


def test_more_than_the_processor_has_is_refused_when_it_is_asked_for(tmp_path: Path) -> None:
    with debugged(tmp_path, NOP * 3 + JMP_SELF) as (vm, gdb):
        room = 4 if vm.vcpu(0).trap else 64
        answers = [gdb.ask(f"Z1,{LOAD_ADDRESS + 2 * n:x},1") for n in range(room + 1)]
        assert answers[:room] == ["OK"] * room
        assert answers[room].startswith("E.")
        assert gdb.ask(f"Z1,{LOAD_ADDRESS:x},1") == "OK"  # it is there already
        assert go(gdb).startswith(TRAPPED)


def test_a_second_server_and_one_that_waits_too_late_are_refused(tmp_path: Path) -> None:
    with debugged(tmp_path, JMP_SELF) as (vm, _):
        with pytest.raises(DebuggerError, match="already"):
            vm.gdb(f"unix:{tmp_path / 'other'}")
        with pytest.raises(MachineError, match="has been started"):
            vm.gdb(f"unix:{tmp_path / 'other'}", wait=True)
        with pytest.raises(DebuggerError, match="architecture"):
            vm.gdb(f"unix:{tmp_path / 'other'}", architecture="arm")
    assert not (tmp_path / "gdb").exists()
