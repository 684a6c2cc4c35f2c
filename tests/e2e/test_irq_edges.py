"""A line that its controller follows: an edge-triggered pin sees one edge for each rise, on real guests.

Intel 82093AA data sheet, section 3.2.4 (edge-sensitive interrupts at a masked pin are ignored, later ones are
not), and 8259A data sheet, "Edge and level triggered modes".
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shardio import Machine
from tests.e2e.board import board_machine
from tests.e2e.support import MMIO, PATIENCE_S, add_exit_port, machine, result
from tests.guests.build import guest

pytestmark = pytest.mark.kvm

PIC, IOAPIC_EDGE, IOAPIC_LEVEL = range(3)
LEVER = "tests.e2e.irq_devices:Lever"
PROMPT = "tests.e2e.irq_devices:Prompt"
SOURCE = "tests.e2e.irq_devices:Source"
RISES = 100


def kernel_machine() -> Machine:
    """A machine whose controllers are in the kernel."""
    vm = machine(shards=2)
    add_exit_port(vm, shard="two")
    return vm


KINDS = pytest.mark.parametrize("make", [kernel_machine, board_machine])


def run(vm: Machine, name: str, device: str, line: int, **parameters: int) -> None:
    """Runs a guest with one device on a followed line; the guest must leave by its exit port."""
    vm.load(guest(name, IRQ=line, **parameters))
    vm.add(device, mmio=MMIO, irq=line, irq_mode="followed", shard="one")
    ended = vm.run(PATIENCE_S)
    assert (ended.reason, ended.status) == ("exit", 0), ended


@KINDS
@pytest.mark.parametrize(("mode", "line"), [(PIC, 5), (IOAPIC_EDGE, 5), (IOAPIC_EDGE, 20)])
def test_one_edge_for_each_rise_outside_accesses(make: Callable[[], Machine], mode: int, line: int) -> None:
    with make() as vm:
        run(vm, "irq_edges", LEVER, line, MODE=mode, COUNT=RISES)

        interrupts = result(vm, 8)
    assert interrupts == RISES


@KINDS
@pytest.mark.parametrize(("mode", "line"), [(PIC, 5), (IOAPIC_EDGE, 5), (IOAPIC_EDGE, 20)])
@pytest.mark.parametrize("read", [0, 1])
def test_one_edge_for_each_rise_in_an_access(
    make: Callable[[], Machine], mode: int, line: int, read: int
) -> None:
    with make() as vm:
        run(vm, "irq_order", PROMPT, line, MODE=mode, COUNT=RISES, READ=read)

        missing, interrupts = result(vm, 4), result(vm, 8)
    assert (missing, interrupts) == (0, RISES)


@KINDS
def test_a_rise_that_a_masked_pin_ignored_costs_no_later_one(make: Callable[[], Machine]) -> None:
    with make() as vm:
        run(vm, "irq_edges", LEVER, 20, MODE=IOAPIC_EDGE, COUNT=RISES, MASKED=1)

        interrupts = result(vm, 8)
    # The VMM may have told the controller of the first rise after the guest had unmasked the pin.
    assert RISES <= interrupts <= RISES + 1


@KINDS
@pytest.mark.parametrize(("mode", "line"), [(PIC, 5), (IOAPIC_EDGE, 20), (IOAPIC_LEVEL, 10)])
def test_no_cause_is_lost(make: Callable[[], Machine], mode: int, line: int) -> None:
    with make() as vm:
        run(vm, "irq_causes", SOURCE, line, MODE=mode, COUNT=2_000)

        causes = result(vm, 4)
    assert causes == 2_000
