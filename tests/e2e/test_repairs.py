"""Instructions that KVM's emulator lacks, executed in its place, counted, and named once."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from shardio import Machine, MachineError
from shardio.dispatcher import ExitInfo
from shardio.kvm.repairs import emulates
from shardio.vcpu import VcpuState
from tests.e2e.support import PATIENCE_S, add_exit_port, machine, result, until
from tests.guests.build import guest

pytestmark = pytest.mark.kvm

ENDED = ExitInfo("exit", status=0)
RFLAGS_AC = 1 << 18
emulated = pytest.mark.skipif(not emulates(), reason="the processor runs guest code here, not an emulator")


def run(vm: Machine, image: bytes) -> ExitInfo:
    vm.load(image, mode="long")
    add_exit_port(vm)
    return vm.run(PATIENCE_S)


def kill_until_the_end(vm: Machine) -> int:
    """SIGKILL of the worker, whichever it is, every few milliseconds: how many there were."""
    kills = 0
    while vm.wait(0.004) is None:
        if pid := vm.vcpu(0).pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                kills += 1
    return kills


def test_int3_and_int_n_go_through_the_guest_s_own_table() -> None:
    with machine() as vm:
        ended = run(vm, guest("long_interrupts"))
        returns = [result(vm, offset, size=8) for offset in (8, 16)]
        handled, code_segment = (result(vm, offset, size=8) for offset in (24, 32))
    assert ended == ENDED
    assert returns == [1, 2]  # behind the instruction: Intel SDM volume 3, 6.15, #BP, and volume 2, INT n
    assert (handled, code_segment) == (2, 0x08)


def test_what_the_emulator_lacks_has_its_effect() -> None:
    with machine() as vm:
        ended = run(vm, guest("long_repairs"))
        set_, cleared, status, st0 = (result(vm, offset, size=8) for offset in (8, 16, 24, 32))
    assert ended == ENDED
    assert (set_ & RFLAGS_AC, cleared & RFLAGS_AC) == (RFLAGS_AC, 0)
    assert status & 0x80FF == 0
    assert st0 == 0x8877665544332211


@emulated
def test_each_repair_is_counted_by_name_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="shardio.supervisor")
    with machine() as vm:
        ended = run(vm, guest("long_repairs", ROUNDS=3))
        vcpu = vm.statistics().vcpus[0]
    told = [record.getMessage() for record in caplog.records if "repaired" in record.getMessage()]
    assert ended == ENDED
    assert {name: vcpu.repairs[name] for name in ("FWAIT", "FNCLEX", "STAC", "CLAC", "CLWB")} == {
        "FWAIT": 3, "FNCLEX": 3, "STAC": 3, "CLAC": 3, "CLWB": 3,
    }  # fmt: skip
    assert sum(vcpu.repairs.values()) == vcpu.exits["INTERNAL_ERROR"]
    assert len(told) == len(vcpu.repairs)
    assert vcpu.spawns == 1


def test_a_hypercall_returns_that_there_is_none() -> None:
    """Under an emulating KVM nothing else would end it: it is executed again and again, without an exit."""
    call = b"\x0f\x01\xc1"
    with machine() as vm:
        ended = run(vm, b"\xb8\x05\x00\x00\x00" + call + b"\xe6\xf4")
    assert ended == ExitInfo("exit", status=-1000 & 0xFF)  # -KVM_ENOSYS


def test_a_guest_that_computes_without_an_exit_is_looked_at_and_goes_on() -> None:
    asked: list[str] = []
    with machine(repairs=True) as vm:
        vm.load(b"\xeb\xfe", mode="long")
        vm.on_exit(lambda _, at: asked.append(at.name) or "end")  # type: ignore[func-returns-value]
        vm.start()
        until(lambda: vm.statistics().vcpus[0].interrupted >= 2, "it is not looked at")
        vm.pause()
        state = vm.vcpu(0).state
    assert state is VcpuState.PAUSED
    assert asked == []


@emulated
def test_repairs_happen_once_however_often_the_worker_is_killed() -> None:
    rounds = 300
    with machine() as vm:
        vm.load(guest("long_repairs", ROUNDS=rounds), mode="long")
        add_exit_port(vm)
        vm.start()
        kills = kill_until_the_end(vm)
        ended, done = vm.wait(0), result(vm, 40, size=8)
        vcpu = vm.statistics().vcpus[0]
    assert ended == ENDED
    assert done == rounds
    assert [vcpu.repairs[name] for name in ("FWAIT", "STAC", "CLAC", "XRSTOR")] == [rounds] * 4
    assert kills > 10
    assert vcpu.spawns > 10


@emulated
def test_without_repairs_the_machine_fails_and_names_the_instruction() -> None:
    with machine(repairs=False) as vm:
        ended = run(vm, guest("long_repairs"))
    assert ended.reason == "failed"
    assert "instruction=9b" in ended.detail


@emulated
def test_an_unknown_instruction_is_reported_by_its_bytes() -> None:
    crc32 = bytes.fromhex("f2480f38f1d8")
    with machine() as vm:
        ended = run(vm, b"\x9b" + crc32)
        vcpu = vm.statistics().vcpus[0]
    assert ended.reason == "failed"
    assert crc32.hex(" ") in ended.detail
    assert vcpu.repairs == {"FWAIT": 1}


def test_repairs_that_are_no_setting_are_refused() -> None:
    with pytest.raises(MachineError, match="no repairs 'maybe'; use True, False or \"auto\""):
        machine(repairs="maybe")
