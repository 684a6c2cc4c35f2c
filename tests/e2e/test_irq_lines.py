"""Interrupt lines end to end, on real guests: no cause is lost, and a trigger in an access is in time."""

from __future__ import annotations

import pytest

from shardio import Machine, MachineError
from tests.e2e.support import MMIO, PATIENCE_S, add_exit_port, result
from tests.guests.build import guest

pytestmark = pytest.mark.kvm

PIC, IOAPIC_EDGE, IOAPIC_LEVEL, MESSAGE = range(4)
SECOND = MMIO + 0x1000
SOURCE = "tests.e2e.irq_devices:Source"
PROMPT = "tests.e2e.irq_devices:Prompt"
CAUSES = 5_000


def run_to_the_end(vm: Machine) -> None:
    """Starts it; the guest must leave by its exit port."""
    ended = vm.run(PATIENCE_S)
    assert (ended.reason, ended.status) == ("exit", 0), ended


@pytest.mark.parametrize(
    ("mode", "line", "irq_mode"),
    [
        (PIC, 5, "edge"),
        (PIC, 5, "level"),
        (IOAPIC_EDGE, 5, "edge"),
        (IOAPIC_EDGE, 20, "edge"),
        (IOAPIC_LEVEL, 10, "level"),
        (IOAPIC_LEVEL, 20, "level"),
    ],
)
def test_no_cause_of_one_device_is_lost(mode: int, line: int, irq_mode: str) -> None:
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("irq_causes", MODE=mode, IRQ=line, COUNT=CAUSES))
        vm.add(SOURCE, mmio=MMIO, irq=line, irq_mode=irq_mode, shard="one")
        add_exit_port(vm, shard="two")

        run_to_the_end(vm)

        causes, interrupts = result(vm, 4), result(vm, 12)
    assert causes == CAUSES
    assert 1 <= interrupts <= 2 * CAUSES


def test_two_devices_in_two_shards_share_a_level_line() -> None:
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("irq_causes", MODE=IOAPIC_LEVEL, IRQ=11, COUNT=CAUSES, SECOND=SECOND))
        vm.add(SOURCE, mmio=MMIO, irq=11, irq_mode="level", shard="one")
        vm.add(SOURCE, mmio=SECOND, irq=11, irq_mode="level", shard="two")
        add_exit_port(vm, shard="two")

        run_to_the_end(vm)

        causes = result(vm, 4), result(vm, 8)
    assert causes == (CAUSES, CAUSES)


@pytest.mark.parametrize("irq_mode", ["edge", "level"])
def test_an_edge_line_is_not_shared(irq_mode: str) -> None:
    with Machine(memory="2M", shards=2) as vm:
        vm.add(SOURCE, mmio=MMIO, irq=5, shard="one")

        with pytest.raises(MachineError, match="share irq 5, which is an edge"):
            vm.add(SOURCE, mmio=SECOND, irq=5, irq_mode=irq_mode, shard="two")


@pytest.mark.parametrize("read", [0, 1])
@pytest.mark.parametrize(
    ("mode", "line", "irq_mode"),
    [(PIC, 5, "edge"), (IOAPIC_EDGE, 5, "edge"), (IOAPIC_EDGE, 20, "edge"), (IOAPIC_LEVEL, 10, "level")],
)
def test_a_line_raised_during_an_access_is_there_when_it_completes(
    mode: int, line: int, irq_mode: str, read: int
) -> None:
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("irq_order", MODE=mode, IRQ=line, COUNT=100, READ=read))
        vm.add(PROMPT, mmio=MMIO, irq=line, irq_mode=irq_mode, shard="one")
        add_exit_port(vm, shard="two")

        run_to_the_end(vm)

        missing, interrupts, accesses = result(vm, 4), result(vm, 8), result(vm, 12)
    assert (missing, accesses) == (0, 100)
    assert interrupts >= 100


@pytest.mark.parametrize("read", [0, 1])
def test_a_message_sent_during_an_access_is_there_when_it_completes(read: int) -> None:
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("irq_order", MODE=MESSAGE, COUNT=100, READ=read))
        vm.add("tests.e2e.irq_devices:PromptMessage", mmio=MMIO, shard="one")
        add_exit_port(vm, shard="two")

        run_to_the_end(vm)

        missing, interrupts, accesses = result(vm, 4), result(vm, 8), result(vm, 12)
    assert (missing, interrupts, accesses) == (0, 100, 100)
