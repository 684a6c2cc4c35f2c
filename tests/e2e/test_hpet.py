"""An HPET that wakes a guest by legacy replacement: KVM's controllers, ours, and the software CPU's."""

from __future__ import annotations

import pytest

from shardio import Machine
from tests.e2e.board import board_machine
from tests.e2e.support import PATIENCE_S, add_exit_port, machine, result
from tests.guests.build import guest

pytestmark = pytest.mark.timeout(120)

PIC, IOAPIC_EDGE = 0, 1
COUNT, TICKS = 30, 100_000


def assert_it_ticks(vm: Machine) -> None:
    """The guest ends, and its interrupts come no faster than its timer."""
    vm.start()
    ended = vm.wait(PATIENCE_S)
    vm.stop()
    assert ended is not None
    assert (ended.reason, ended.status, result(vm, 4)) == ("exit", 0, COUNT)
    assert result(vm, 8) >= (COUNT - 2) * TICKS


@pytest.mark.machine
@pytest.mark.parametrize(("mode", "irq", "timer"), [(PIC, 0, 0), (IOAPIC_EDGE, 0, 0), (IOAPIC_EDGE, 8, 1)])
def test_a_guest_is_woken_by_its_comparators(mode: int, irq: int, timer: int) -> None:
    with machine(shards=2) as vm:
        vm.load(guest("hpet", COUNT=COUNT, MODE=mode, IRQ=irq, TIMER=timer))
        vm.add("shardio.devices:Hpet", shard="timer")
        add_exit_port(vm, shard="other")
        assert_it_ticks(vm)


@pytest.mark.kvm
def test_a_guest_is_woken_where_the_controllers_are_devices() -> None:
    with board_machine() as vm:
        vm.load(guest("hpet", COUNT=COUNT, MODE=IOAPIC_EDGE, IRQ=8, TIMER=1))
        vm.add("shardio.devices:Hpet", shard="two")
        assert_it_ticks(vm)
