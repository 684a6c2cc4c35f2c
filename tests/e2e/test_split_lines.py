"""Interrupt lines of a machine whose controllers are devices (KVM's split irqchip), on real guests."""

from __future__ import annotations

import pytest

from shardio import Machine, MachineError
from tests.e2e.board import board_machine
from tests.e2e.support import MMIO, PATIENCE_S, result, until
from tests.guests.build import guest

pytestmark = pytest.mark.kvm

PIC, IOAPIC_EDGE, IOAPIC_LEVEL, MESSAGE = range(4)
SECOND = MMIO + 0x1000
SOURCE = "tests.e2e.irq_devices:Source"
PROMPT = "tests.e2e.irq_devices:Prompt"
CAUSES = 2_000
MODES = [
    (PIC, 5, "edge"),
    (PIC, 5, "level"),
    (IOAPIC_EDGE, 5, "edge"),
    (IOAPIC_EDGE, 20, "edge"),
    (IOAPIC_EDGE, 20, "level"),
    (IOAPIC_LEVEL, 10, "level"),
    (IOAPIC_LEVEL, 20, "level"),
]


def run_to_the_end(vm: Machine) -> None:
    """Starts it; the guest must leave by its exit port."""
    ended = vm.run(PATIENCE_S)
    assert (ended.reason, ended.status) == ("exit", 0), ended


@pytest.mark.parametrize(("mode", "line", "irq_mode"), MODES)
def test_no_cause_of_one_device_is_lost(mode: int, line: int, irq_mode: str) -> None:
    with board_machine() as vm:
        vm.load(guest("irq_causes", MODE=mode, IRQ=line, COUNT=CAUSES))
        vm.add(SOURCE, mmio=MMIO, irq=line, irq_mode=irq_mode, shard="one")

        run_to_the_end(vm)

        causes, interrupts = result(vm, 4), result(vm, 12)
    assert causes == CAUSES
    assert 1 <= interrupts <= 2 * CAUSES


@pytest.mark.parametrize("read", [0, 1])
@pytest.mark.parametrize(("mode", "line", "irq_mode"), MODES)
def test_a_line_raised_during_an_access_is_there_when_it_completes(
    mode: int, line: int, irq_mode: str, read: int
) -> None:
    with board_machine() as vm:
        vm.load(guest("irq_order", MODE=mode, IRQ=line, COUNT=100, READ=read))
        vm.add(PROMPT, mmio=MMIO, irq=line, irq_mode=irq_mode, shard="one")

        run_to_the_end(vm)

        missing, interrupts, accesses = result(vm, 4), result(vm, 8), result(vm, 12)
    assert (missing, accesses) == (0, 100)
    assert interrupts >= 100


@pytest.mark.parametrize("mode", [PIC, IOAPIC_EDGE])
def test_an_edge_pin_sees_one_edge_for_each_rise_of_a_level_line(mode: int) -> None:
    with board_machine() as vm:
        vm.load(guest("irq_order", MODE=mode, IRQ=5, COUNT=200))
        vm.add(PROMPT, mmio=MMIO, irq=5, irq_mode="level", shard="one")

        run_to_the_end(vm)

        interrupts, accesses = result(vm, 8), result(vm, 12)
    assert interrupts == accesses == 200


@pytest.mark.parametrize(("mode", "line"), [(IOAPIC_LEVEL, 11), (PIC, 5), (IOAPIC_EDGE, 9)])
def test_two_devices_in_two_shards_share_a_level_line(mode: int, line: int) -> None:
    with board_machine() as vm:
        vm.load(guest("irq_causes", MODE=mode, IRQ=line, COUNT=CAUSES, SECOND=SECOND))
        vm.add(SOURCE, mmio=MMIO, irq=line, irq_mode="level", shard="one")
        vm.add(SOURCE, mmio=SECOND, irq=line, irq_mode="level", shard="two")

        run_to_the_end(vm)

        causes = result(vm, 4), result(vm, 8)
    assert causes == (CAUSES, CAUSES)


def test_an_end_of_a_level_interrupt_leaves_the_guest() -> None:
    with board_machine() as vm:
        vm.load(guest("irq_order", MODE=IOAPIC_LEVEL, IRQ=10, COUNT=100))
        vm.add(PROMPT, mmio=MMIO, irq=10, irq_mode="level", shard="one")

        run_to_the_end(vm)

        ends = vm.statistics().vcpus[0].exits["IOAPIC_EOI"]
        interrupts = result(vm, 8)
    assert interrupts - 1 <= ends <= interrupts


def test_controllers_can_come_while_the_guest_runs() -> None:
    with Machine(memory="2M", shards=2, irqchip="split") as vm:
        vm.load(guest("hlt"))
        vm.start()
        pic = vm.add("shardio.devices:Pic")
        device = vm.add(PROMPT, mmio=MMIO, irq=5)
        vm.remove(device)
        vm.remove(pic)

        with pytest.raises(MachineError, match="split irqchip has no lines"):
            vm.add(PROMPT, mmio=MMIO, irq=5)


def test_a_timer_that_is_a_device_interrupts_in_time() -> None:
    with board_machine() as vm:
        vm.load(guest("pit", COUNT=50))
        vm.add("shardio.devices:Pit", irq=0, shard="two")
        vm.start()
        until(lambda: result(vm, 4) >= 1, "the first tick")

        ended = vm.wait(PATIENCE_S)
        vm.stop()

        ticks = result(vm, 4)
    assert ended is not None
    assert (ended.reason, ended.status, ticks) == ("exit", 0, 50)
