"""What a machine on the software CPU has by itself; what it has in common with KVM's is in tests/e2e."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from shardio import Machine
from shardio._core import lib
from shardio.errors import MachineError
from tests.e2e.support import PATIENCE_S, add_exit_port, result, until
from tests.guests.build import guest


def soft(**options: Any) -> Machine:
    """A machine on the software CPU, with an exit port."""
    vm = Machine(**{"memory": "2M", "cpu": "soft", "shards": 2, "hang_deadline": PATIENCE_S, **options})
    add_exit_port(vm)
    return vm


def run_to_the_end(vm: Machine) -> None:
    """Starts it; the guest must leave by its exit port."""
    ended = vm.run(PATIENCE_S)
    assert (ended.reason, ended.status) == ("exit", 0), ended


def test_pit_interrupts() -> None:
    with soft() as vm:
        vm.load(guest("pit", COUNT=20))

        began = time.monotonic()
        run_to_the_end(vm)
        milliseconds = (time.monotonic() - began) * 1000

        # One or more may come, a millisecond apart, before the guest looks whether it has had enough.
        assert 20 <= result(vm, 4) <= milliseconds


def test_the_local_apics_timer_interrupts() -> None:
    with soft() as vm:
        vm.load(guest("apic_timer", COUNT=20))

        run_to_the_end(vm)

        assert result(vm, 4) == 20


def test_long_mode_is_refused_by_name() -> None:
    with soft() as vm:
        vm.load(b"\xf4", mode="long")

        with pytest.raises(MachineError, match="no long mode"):
            vm.start()


def test_a_worker_killed_while_it_executes_ends_the_machine_and_says_so() -> None:
    with soft() as vm:
        vm.load(b"\xeb\xfe")  # jmp to itself
        vm.start()
        until(lambda: vm.hypervisor.record.vcpu(0).phase == lib.SIO_SOFT_RUN, "it runs")  # type: ignore[attr-defined]
        os.kill(vm.statistics().vcpus[0].pid, signal.SIGKILL)

        ended = vm.wait(PATIENCE_S)
    assert ended is not None
    assert ended.reason == "failed"
    assert "killed while it executed the guest" in str(ended.detail)
