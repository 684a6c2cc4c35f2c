"""A million triggers and a million doorbells, each accounted for."""

from __future__ import annotations

import pytest

from shardio import Machine
from tests.e2e.support import MMIO, add_exit_port, result, until
from tests.guests.build import guest

pytestmark = [pytest.mark.kvm, pytest.mark.soak]

SOURCE = "tests.e2e.irq_devices:Source"
MILLION = 1_000_000
PATIENCE_S = 600.0


@pytest.mark.parametrize(("mode", "line", "irq_mode"), [(0, 5, "edge"), (1, 20, "edge"), (2, 10, "level")])
def test_a_million_triggers_from_two_shards(mode: int, line: int, irq_mode: str) -> None:
    second = MMIO + 0x1000
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("irq_causes", MODE=mode, IRQ=line, COUNT=MILLION // 2, SECOND=second))
        vm.add(SOURCE, mmio=MMIO, irq=line, irq_mode=irq_mode, shard="one")
        vm.add(SOURCE, mmio=second, irq=line, irq_mode=irq_mode, shard="two")
        add_exit_port(vm, shard="two")

        ended = vm.run(PATIENCE_S)

        causes = result(vm, 4), result(vm, 8)
    assert ended.reason == "exit"
    assert causes == (MILLION // 2, MILLION // 2)


@pytest.mark.parametrize("pio", [False, True])
def test_a_million_doorbells(pio: bool) -> None:
    address = 0x500 if pio else MMIO
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("doorbells", ADDRESS=address, PIO=int(pio), COUNT=MILLION))
        place = (address, None) if pio else (None, address)
        device = vm.add("tests.e2e.irq_devices:Queues", pio=place[0], mmio=place[1], shard="one")
        add_exit_port(vm, shard="two")
        vm.start()

        ended = vm.wait(PATIENCE_S)
        until(lambda: device.call("rings") == [MILLION, 0], "every ring is there")
        vm.stop()

        exits = vm.statistics().vcpus[0].exits
    assert ended is not None
    assert exits == {"IO": 1}  # the exit port's
