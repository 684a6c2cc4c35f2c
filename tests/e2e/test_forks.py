"""A device that forks its shard: the children neither serve nor outlive the access, and the guest goes on."""

from __future__ import annotations

import os

import pytest

from shardio import Machine
from tests.e2e.support import MMIO, PATIENCE_S, add_exit_port, until
from tests.guests.build import guest

pytestmark = pytest.mark.machine

COUNT = 5


@pytest.mark.parametrize("posted", [False, True])
def test_children_that_come_back_from_a_handler_end(posted: bool) -> None:
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("doorbells", COUNT=COUNT))
        device = vm.add("tests.e2e.devices:Forking", mmio=MMIO, posted=posted, shard="one")
        add_exit_port(vm, shard="two")
        vm.start()

        ended = vm.wait(PATIENCE_S)
        until(lambda: vm.statistics().devices[0].writes == COUNT, "every write has arrived")
        statuses = device.call("statuses")

        spawns = [shard.spawns for shard in vm.statistics().shards]
    assert ended is not None
    assert ended.reason == "exit"
    assert statuses == [os.EX_SOFTWARE] * COUNT
    assert spawns == [1, 1]
