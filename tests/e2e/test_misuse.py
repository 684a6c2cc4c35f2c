"""A machine used as nobody should: from two threads, after its end, in a fork, by a program that takes its
children away. It refuses, or goes on; it never takes the VMM down.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shardio import Machine, MachineError
from shardio.devices import Counter
from shardio.dispatcher import ExitInfo
from shardio.supervisor import Supervisor
from tests.conftest import open_fds
from tests.e2e.devices import Unfinished
from tests.e2e.support import MMIO, NEVER, PATIENCE_S, add_exit_port, console, machine, read_until, until
from tests.guests.build import guest

pytestmark = [pytest.mark.machine, pytest.mark.timeout(120)]

USES: dict[str, Callable[[Machine], object]] = {
    "start": Machine.start,
    "run": Machine.run,
    "pause": Machine.pause,
    "resume": Machine.resume,
    "add": lambda vm: vm.add(Counter, mmio=0xE000_0000, size=4),
    "remove": lambda vm: vm.remove("Counter"),
    "load": lambda vm: vm.load(b"\xf4"),
    "load_firmware": lambda vm: vm.load_firmware("/dev/null"),
    "load_tables": lambda vm: vm.load_tables("mp"),
}


def busy(vm: Machine, vcpus: int = 1) -> Machine:
    """The machine with a guest that writes to its device without an end."""
    vm.load(guest("mmio_loop", VCPUS=vcpus, COUNT=NEVER))
    add_exit_port(vm)
    vm.add(Counter, mmio=MMIO, size=0x1000)
    return vm


def refusals(vm: Machine, said: str) -> list[str]:
    """The uses that the machine refuses with these words."""
    refused = []
    for name, use in USES.items():
        try:
            use(vm)
        except MachineError as error:
            refused += [name] * (said in str(error))
    return refused


def exits(vm: Machine) -> int:
    """How often vCPU 0 has left the guest."""
    return sum(vm.statistics().vcpus[0].exits.values())


def goes_on(vm: Machine) -> None:
    """Returns when the guest has made some more exits."""
    goal = exits(vm) + 20
    until(lambda: exits(vm) >= goal, "the guest runs on")


def drop(machines: list[Machine]) -> None:
    """Nobody holds them any more."""
    machines.clear()
    gc.collect()


@contextmanager
def sigchld(action: signal.Handlers) -> Iterator[None]:
    """SIGCHLD handled so."""
    before = signal.signal(signal.SIGCHLD, action)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def in_fork(action: Callable[[], None]) -> int:
    """The wait status of a forked child that does this and no more; SIGALRM after 10 s."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(10)
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


# ---- threads ----


@pytest.mark.parametrize("end", [Machine.stop, Machine.close])
def test_run_returns_once_another_thread_has_ended_the_machine(end: Callable[[Machine], None]) -> None:
    endings = []
    for _ in range(3):
        with busy(machine(vcpus=2), vcpus=2) as vm:

            def from_outside(vm: Machine = vm) -> None:
                until(lambda: bool(vm.statistics().vcpus), "it starts")
                end(vm)

            other = threading.Thread(target=from_outside)
            other.start()
            endings.append(vm.run(PATIENCE_S))
        other.join()
    assert endings == [ExitInfo("stopped")] * 3


def test_a_stop_that_was_broken_off_is_repeated_by_close(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def interrupted(supervisor: Supervisor) -> None:
        asked.append(supervisor)
        raise KeyboardInterrupt

    vm = busy(machine())
    vm.start()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Supervisor, "stop_vcpus", interrupted)
        vm.stop()
    worker = os.pidfd_open(vm.statistics().vcpus[0].pid)
    vm.close()
    ended = select.select([worker], [], [], 0)[0]
    os.close(worker)
    assert (len(asked), ended) == (1, [worker])


@pytest.mark.parametrize("at_run_time", [False, True])
def test_close_breaks_off_what_waits_for_a_constructor(tmp_path: Path, at_run_time: bool) -> None:
    refused: list[MachineError] = []
    vm = busy(machine())

    def begin() -> None:
        with pytest.raises(MachineError) as caught:
            if at_run_time:
                vm.start()
            vm.add(Unfinished, mmio=0xE000_0000, size=4, begun=str(tmp_path / "begun"))
            vm.start()
        refused.append(caught.value)

    with console(tmp_path / "begun") as begun:
        other = threading.Thread(target=begin)
        other.start()
        read_until(begun, b"!")
        vm.close()
    other.join()
    assert "was closed before a shard had answered" in str(refused)


# ---- before the start ----


def test_a_machine_that_is_dropped_gives_back_what_it_holds() -> None:
    before = open_fds()
    machines = [busy(machine(vcpus=2))]
    held = len(open_fds()) - len(before)
    with pytest.warns(ResourceWarning, match=r"unclosed machine of 2 vCPUs: close\(\) it"):
        drop(machines)
    assert (held > 4, open_fds()) == (True, before)


@pytest.mark.parametrize("end", [Machine.close, Machine.run])
def test_a_machine_that_was_closed_is_dropped_without_a_word(end: Callable[[Machine], object]) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        machines = [machine()]
        machines[0].load(guest("hello"))
        add_exit_port(machines[0])
        end(machines[0])
        machines[0].close()
        drop(machines)
    assert told == []


def test_a_machine_that_was_refused_is_dropped_without_a_word() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(MachineError):
            machine(vcpus=0)
        with pytest.raises(MachineError):
            machine(memory=1)
        gc.collect()
    assert told == []


@pytest.mark.parametrize("more", [-1, 65537])
def test_room_for_more_ranges_than_there_can_be_is_refused(more: int) -> None:
    with pytest.raises(MachineError, match=f"room for {more} more ranges; use 0 to 65536"):
        machine(max_ranges=more)


def test_room_for_more_ranges_than_devices_leave_is_refused_at_the_start(cpu: str) -> None:
    # The software CPU's interrupt controllers and PIT are devices, with eight ranges.
    used = {"kvm": 2, "soft": 10}[cpu]
    with busy(machine(max_ranges=65535)) as vm:
        told = f"^{used} address ranges and room for 65535 more; .*max_ranges"
        with pytest.raises(MachineError, match=told):
            vm.start()


# ---- after the end ----


def test_a_closed_machine_refuses() -> None:
    vm = busy(machine())
    vm.start()
    vm.close()
    assert refusals(vm, "is closed") == list(USES)
    assert vm.wait(0) == ExitInfo("stopped")


def test_a_machine_that_was_closed_before_its_start_refuses() -> None:
    vm = busy(machine())
    vm.close()
    assert refusals(vm, "is closed") == list(USES)


def test_a_stopped_machine_refuses() -> None:
    with busy(machine()) as vm:
        vm.start()
        vm.stop()
        before = vm.statistics()
        assert refusals(vm, "has stopped") == list(USES)
        assert vm.statistics() == before


def test_a_stopped_machine_says_when_its_devices_could_be_called() -> None:
    with busy(machine()) as vm:
        handle = vm.add(Counter, mmio=0xE000_0000, size=4)
        vm.start()
        vm.stop()
        with pytest.raises(MachineError, match=r"between start\(\) and stop\(\)"):
            handle.call("read", 0, 4)


# ---- forks and children ----


def test_a_fork_of_the_vmm_closes_nothing() -> None:
    with busy(machine()) as vm:
        vm.start()
        goes_on(vm)
        status = in_fork(vm.close)
        goes_on(vm)
    assert status == 0


def test_a_fork_of_the_vmm_cannot_use_the_machine() -> None:
    def refused() -> None:
        with pytest.raises(MachineError, match="another process"):
            vm.pause()

    with busy(machine()) as vm:
        vm.start()
        status = in_fork(refused)
        goes_on(vm)
    assert status == 0


@pytest.mark.parametrize("victim", ["vcpus", "shards"])
def test_a_program_that_ignores_sigchld_keeps_its_machine(victim: str) -> None:
    with sigchld(signal.SIG_IGN), busy(machine(shards=1)) as vm:
        vm.start()
        goes_on(vm)
        os.kill(getattr(vm.statistics(), victim)[0].pid, signal.SIGKILL)
        until(lambda: getattr(vm.statistics(), victim)[0].spawns == 2, "a successor")
        goes_on(vm)
