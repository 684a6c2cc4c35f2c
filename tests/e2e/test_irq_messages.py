"""MSI and MSI-X end to end, on real guests."""

from __future__ import annotations

import pytest

from shardio import Machine
from tests.e2e.support import MMIO, PATIENCE_S, add_exit_port, result
from tests.guests.build import guest

pytestmark = pytest.mark.kvm


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
