"""Exits that no vCPU serves, put to the function of `Machine.on_exit`; registers of a vCPU at rest."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from shardio import ExitHookFailed, Machine, MachineError, UnknownRegister, VcpuError
from shardio.dispatcher import ExitInfo
from shardio.vcpu import Segment, Table, Vcpu, VcpuState
from tests.e2e.devices import Recorder
from tests.e2e.support import MMIO, PATIENCE_S, add_exit_port, machine, until
from tests.guests.build import guest

pytestmark = pytest.mark.machine

HLT = b"\xf4"
MOV_AL_7 = b"\xb0\x07"
OUT_AL = b"\xe6\xf4"
"""out 0xF4, al: ends the machine with this status."""
JMP_SELF = b"\xeb\xfe"
SEEN = "KVM_EXIT_HLT"


def asking(vm: Machine, image: bytes, hook: Any) -> None:
    """A machine that runs `image` from real mode; what it does not serve is the hook's."""
    vm.load(image)
    vm.on_exit(hook)
    add_exit_port(vm)


def test_a_hook_that_resumes_lets_the_same_worker_go_on() -> None:
    seen: list[tuple[int, str]] = []

    def hook(vcpu: Vcpu, at: Any) -> str:
        seen.append((vcpu.index, at.name))
        return "resume"

    with machine(irqchip=False) as vm:
        asking(vm, HLT + HLT + MOV_AL_7 + OUT_AL, hook)
        ended = vm.run(PATIENCE_S)
        vcpu = vm.statistics().vcpus[0]
    assert ended == ExitInfo("exit", status=7)
    assert seen == [(0, SEEN), (0, SEEN)]
    assert (vcpu.spawns, vcpu.exits["HLT"]) == (1, 2)


def test_a_hook_that_ends_is_as_none_at_all() -> None:
    with machine(irqchip=False) as vm:
        asking(vm, HLT + MOV_AL_7 + OUT_AL, lambda *_: "end")
        ended = vm.run(PATIENCE_S)
    assert ended == ExitInfo("halted", vcpu=0)


def test_a_hook_reads_and_changes_registers_and_memory() -> None:
    seen: dict[str, Any] = {}

    def hook(vcpu: Vcpu, _: Any) -> str:
        seen.update(vcpu.registers.all(), state=vcpu.state, code=vm.memory.read(0x1000, 3))
        vcpu.registers["rax"] += 2
        vm.memory.write(0x1004, b"\x90")  # what would be executed next is a second HLT
        return "resume"

    with machine(irqchip=False) as vm:
        asking(vm, MOV_AL_7 + b"\x90" + HLT + HLT + OUT_AL, hook)
        ended = vm.run(PATIENCE_S)
    assert ended == ExitInfo("exit", status=9)
    assert seen["state"] is VcpuState.ASKING
    assert seen["code"] == MOV_AL_7 + b"\x90"
    assert (seen["rax"], seen["rip"]) == (7, 0x1004)


def test_what_a_hook_raises_ends_the_machine_and_arrives_where_it_is_waited_for() -> None:
    def hook(_vcpu: Vcpu, _at: Any) -> str:
        raise ZeroDivisionError("no reason")

    with machine(irqchip=False) as vm:
        asking(vm, HLT, hook)
        with pytest.raises(ExitHookFailed, match="KVM_EXIT_HLT: ZeroDivisionError: no reason") as failed:
            vm.run(PATIENCE_S)
        with pytest.raises(ExitHookFailed):
            vm.wait(0)
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    assert failed.value.__cause__.__traceback__ is not None
    assert failed.value.vcpu == 0


def test_what_is_no_verdict_ends_the_machine() -> None:
    with machine(irqchip=False) as vm:
        asking(vm, HLT, lambda *_: None)
        with pytest.raises(ExitHookFailed, match='it returned None; return "resume" or "end"'):
            vm.run(PATIENCE_S)


def test_a_worker_that_is_killed_while_its_hook_decides_is_replaced_and_the_hook_asked_once() -> None:
    entered, go = threading.Event(), threading.Event()
    calls: list[int] = []

    def hook(vcpu: Vcpu, _: Any) -> str:
        calls.append(vcpu.pid)
        entered.set()
        assert go.wait(PATIENCE_S)
        vcpu.registers["rax"] = 9
        return "resume"

    with machine(irqchip=False) as vm:
        asking(vm, HLT + OUT_AL, hook)
        vm.start()
        assert entered.wait(PATIENCE_S)
        vcpu = vm.vcpu(0)
        os.kill(calls[0], signal.SIGKILL)
        until(lambda: vcpu.pid not in (0, calls[0]), "a successor")
        go.set()
        ended = vm.wait(PATIENCE_S)
        spawns = vm.statistics().vcpus[0].spawns
    assert ended == ExitInfo("exit", status=9)
    assert (len(calls), spawns) == (1, 2)


def test_a_machine_is_stopped_while_a_hook_decides() -> None:
    entered, go = threading.Event(), threading.Event()

    def hook(_vcpu: Vcpu, _at: Any) -> str:
        entered.set()
        assert go.wait(PATIENCE_S)
        return "resume"

    with machine(irqchip=False) as vm:
        asking(vm, HLT + OUT_AL, hook)
        vm.start()
        assert entered.wait(PATIENCE_S)
        vm.stop()
        state = vm.vcpu(0).state
        go.set()
    assert state is VcpuState.STOPPED


def test_each_of_two_vcpus_is_asked_about_and_the_other_goes_on() -> None:
    seen: list[int] = []

    def hook(vcpu: Vcpu, _: Any) -> str:
        seen.append(vcpu.index)
        return "resume"

    with machine(vcpus=2, irqchip=False) as vm:
        asking(vm, HLT + HLT + JMP_SELF, hook)
        vm.start()
        until(lambda: len(seen) == 4, "two exits of each")
        vm.stop()
    assert sorted(seen) == [0, 0, 1, 1]


def test_a_hook_has_the_guest_enter_a_handler() -> None:
    handler = 0x2000

    def hook(vcpu: Vcpu, _: Any) -> str:
        vcpu.raise_exception(0x61)
        assert vcpu.pending_exception == 0x61
        return "resume"

    with machine(irqchip=False) as vm:
        asking(vm, HLT + JMP_SELF, hook)
        vm.memory.write(4 * 0x61, bytes((0, 0x20, 0, 0)))
        vm.memory.write(handler, MOV_AL_7 + OUT_AL)
        ended = vm.run(PATIENCE_S)
    assert ended == ExitInfo("exit", status=7)


@pytest.mark.kvm
def test_a_hook_steps_over_an_instruction_that_kvm_cannot_emulate() -> None:
    def hook(vcpu: Vcpu, at: Any) -> str:
        assert at.name == "KVM_EXIT_INTERNAL_ERROR"
        assert at.details["instruction"][:2] == b"\xdb\x2b"  # fldt (%ebx)
        vcpu.cancel_exception()
        vcpu.registers["rip"] += 2
        return "resume"

    with machine(irqchip=False) as vm:
        vm.load(guest("bad_instruction"))
        vm.add(Recorder, mmio=MMIO, size=0x1000)
        vm.on_exit(lambda vcpu, at: "end" if at.name == SEEN else hook(vcpu, at))
        ended = vm.run(PATIENCE_S)
        exits = vm.statistics().vcpus[0].exits
    assert ended == ExitInfo("halted", vcpu=0)
    assert exits["INTERNAL_ERROR"] == 1


# ---- registers of a paused vCPU ----


def test_registers_of_a_paused_vcpu_are_changed_and_the_guest_goes_on_with_them() -> None:
    with machine() as vm:
        vm.load(JMP_SELF + OUT_AL)
        add_exit_port(vm)
        vm.start()
        with pytest.raises(VcpuError, match=r"pause\(\) the machine first"):
            vm.vcpu(0).registers.all()
        vm.pause()
        registers = vm.vcpu(0).registers
        before = registers["rip"]
        registers.update(rip=0x1002, rax=0x55)
        after = (registers["rip"], registers["rax"])
        vm.resume()
        ended = vm.wait(PATIENCE_S)
    assert (before, after) == (0x1000, (0x1002, 0x55))
    assert ended == ExitInfo("exit", status=0x55)


def test_registers_that_were_changed_outlive_the_worker() -> None:
    with machine() as vm:
        vm.load(JMP_SELF + OUT_AL)
        add_exit_port(vm)
        vm.start()
        vm.pause()
        vcpu = vm.vcpu(0)
        vcpu.registers.update(rip=0x1002, rax=0x55)
        killed = vcpu.pid
        os.kill(killed, signal.SIGKILL)
        until(lambda: vcpu.pid not in (0, killed) and vcpu.state is VcpuState.PAUSED, "a successor")
        seen = vcpu.registers["rax"]
        vm.resume()
        ended = vm.wait(PATIENCE_S)
    assert seen == 0x55
    assert ended == ExitInfo("exit", status=0x55)


def test_segments_and_tables_of_a_paused_vcpu() -> None:
    with machine() as vm:
        vm.load(JMP_SELF)
        vm.start()
        vm.pause()
        registers = vm.vcpu(0).registers
        code = registers.segment("cs")
        es = Segment(selector=0x123, base=0x1230, limit=0xFFFF, type=3, s=1, dpl=0, present=1)
        registers.set_segment("es", es)
        registers.set_table("idt", Table(0x400, 0x7F))
        extra, table = registers.segment("es"), registers.table("idt")
        with pytest.raises(UnknownRegister, match="no register named 'eip'; use one of rax"):
            registers["eip"]
        with pytest.raises(UnknownRegister):
            registers.segment("xs")
        vm.resume()
        vm.pause()
        kept = vm.vcpu(0).registers.segment("es")
    assert (code.selector, code.base) == (0, 0)
    assert (extra.selector, extra.base, table) == (0x123, 0x1230, Table(0x400, 0x7F))
    assert (kept.selector, kept.base) == (0x123, 0x1230)


@pytest.mark.kvm
def test_msrs_of_a_paused_vcpu_by_number() -> None:
    lstar = 0xC000_0082
    with machine() as vm:
        vm.load(JMP_SELF)
        vm.start()
        vm.pause()
        registers = vm.vcpu(0).registers
        registers.set_msr(lstar, 0x1234)
        value = registers.msr(lstar)
        with pytest.raises(UnknownRegister, match="no MSR 0x7fffffff"):
            registers.msr(0x7FFF_FFFF)
    assert value == 0x1234


def test_a_hook_cannot_be_set_on_a_machine_that_has_ended() -> None:
    vm = machine()
    vm.close()
    with pytest.raises(MachineError, match="is closed"):
        vm.on_exit(lambda *_: "end")
