"""MSI and MSI-X end to end, on real guests."""

from __future__ import annotations

import pytest

from shardio import Machine, MachineError
from tests.e2e.support import MMIO, PATIENCE_S, add_exit_port, result
from tests.guests.build import guest

pytestmark = pytest.mark.machine


@pytest.mark.parametrize(("vcpus", "target"), [(1, 0), (2, 0), (2, 1)])
def test_a_message_reaches_the_vcpu_that_it_names(vcpus: int, target: int) -> None:
    with Machine(memory="2M", vcpus=vcpus, shards=2) as vm:
        vm.load(guest("msi_target", VCPUS=vcpus, TARGET=target, COUNT=50))
        vm.add("tests.e2e.irq_devices:Message", mmio=MMIO, shard="one")
        add_exit_port(vm, shard="two")

        ended = vm.run(PATIENCE_S)

        taken = [result(vm, 4, vcpu) for vcpu in range(vcpus)]
    assert (ended.reason, ended.status) == ("exit", 0), ended
    assert taken == [50 if vcpu == target else 0 for vcpu in range(vcpus)]


def test_masked_vectors_are_pending_and_delivered_once_when_unmasked() -> None:
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("msix_mask"))
        vm.add("tests.e2e.irq_devices:Msix", mmio=MMIO, shard="one")
        add_exit_port(vm, shard="two")

        ended = vm.run(PATIENCE_S)

        taken = [result(vm, offset) for offset in range(8, 28, 4)]
        pending = [result(vm, offset) for offset in range(28, 44, 4)]
    assert (ended.reason, ended.status) == ("exit", 0), ended
    assert taken == [1, 1, 2, 2, 3]
    assert pending == [1, 0, 1, 0]


def test_a_split_irqchip_takes_messages() -> None:
    with Machine(memory="2M", shards=2, irqchip="split") as vm:
        vm.load(guest("irq_order", MODE=3, COUNT=50))
        vm.add("tests.e2e.irq_devices:PromptMessage", mmio=MMIO, shard="one")
        add_exit_port(vm, shard="two")

        ended = vm.run(PATIENCE_S)

        missing, taken = result(vm, 4), result(vm, 8)
    assert (ended.reason, ended.status) == ("exit", 0), ended
    assert (missing, taken) == (0, 50)


def test_a_split_irqchip_has_no_lines() -> None:
    with Machine(memory="2M", irqchip="split") as vm:
        vm.load(guest("hlt"))
        vm.add("tests.e2e.irq_devices:Prompt", mmio=MMIO, irq=5)

        with pytest.raises(MachineError, match="split irqchip has no lines"):
            vm.start()


def test_there_are_three_kinds_of_irqchip() -> None:
    with pytest.raises(MachineError, match="irqchip"):
        Machine(memory="2M", irqchip="half")
