"""Doorbells end to end: writes of a real guest that ring a device in a shard without an exit."""

from __future__ import annotations

import os
import signal

import pytest

from shardio import Machine
from shardio.dispatcher import MachineStatistics
from tests.e2e.support import MMIO, NEVER, PATIENCE_S, add_exit_port, until
from tests.guests.build import guest

pytestmark = pytest.mark.machine

QUEUES = "tests.e2e.irq_devices:Queues"
SOURCE = "tests.e2e.irq_devices:Source"
PORT = 0x500
RINGS = 20_000


def exits(statistics: MachineStatistics) -> dict[str, int]:
    """vCPU 0's exits by name."""
    return statistics.vcpus[0].exits


@pytest.mark.parametrize("pio", [False, True])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_every_write_rings_and_none_exits(pio: bool, width: int) -> None:
    with Machine(memory="2M", shards=2) as vm:
        address = PORT if pio else MMIO
        vm.load(guest("doorbells", ADDRESS=address, PIO=int(pio), WIDTH=width, COUNT=RINGS, OTHER_COUNT=1000))
        place = (address, None) if pio else (None, address)
        device = vm.add(QUEUES, pio=place[0], mmio=place[1], width=width, shard="one")
        add_exit_port(vm, shard="two")
        vm.start()

        ended = vm.wait(PATIENCE_S)
        until(lambda: device.call("rings") == [RINGS, 1000], "every ring is there")
        calls = device.call("counts")
        vm.stop()

        left = exits(vm.statistics())
    assert ended is not None
    assert (ended.reason, ended.status) == ("exit", 0)
    assert left == {"IO": 1}  # the exit port's
    assert 1 <= calls[0] <= RINGS
    assert 1 <= calls[1] <= 1000
    assert calls[2] == 0


def test_what_no_doorbell_matches_is_an_access() -> None:
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("doorbells", VALUE=2, COUNT=10, OTHER=1, OTHER_COUNT=5))
        device = vm.add(QUEUES, mmio=MMIO, shard="one")
        add_exit_port(vm, shard="two")
        vm.start()

        ended = vm.wait(PATIENCE_S)
        until(lambda: device.call("rings") == [0, 5], "every ring is there")
        counts = device.call("counts")
        vm.stop()

        left = exits(vm.statistics())
    assert ended is not None
    assert left == {"IO": 1, "MMIO": 10}
    assert counts[2] == 10


def test_a_killed_shards_successor_has_irqfds_and_doorbells_anew() -> None:
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("doorbells", COUNT=NEVER))
        device = vm.add(QUEUES, mmio=MMIO, shard="one")
        vm.add(SOURCE, mmio=MMIO + 0x1000, irq=5, irq_mode="level", shard="one")
        vm.add(SOURCE, mmio=MMIO + 0x2000, irq=6, shard="one")
        vm.start()
        until(lambda: device.call("rings")[0] > 1000, "it rings")
        first, descriptors = vm.statistics().shards[0], len(os.listdir("/proc/self/fd"))

        os.kill(first.pid, signal.SIGKILL)
        until(lambda: vm.statistics().shards[0].spawns == 2, "there is a successor")
        until(lambda: device.call("rings")[0] > 1000, "it rings again")
        accesses = device.call("counts")[2]
        until(lambda: device.call("rings")[0] > 2000, "it rings on")

        until(lambda: len(os.listdir("/proc/self/fd")) == descriptors, "none is left")
        second = vm.statistics().shards[0]
        later = device.call("counts")[2]
    assert second.pid not in (0, first.pid)
    assert later == accesses  # since the doorbells are back, no write is an access


def test_a_device_that_goes_takes_its_doorbells_along() -> None:
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("doorbells", COUNT=NEVER))
        device = vm.add(QUEUES, mmio=MMIO, shard="one")
        vm.start()
        until(lambda: device.call("rings")[0] > 0, "it rings")

        vm.remove(device)
        before = vm.statistics().vcpus[0].unclaimed_writes
        until(lambda: vm.statistics().vcpus[0].unclaimed_writes > before, "writes go nowhere")
        again = vm.add(QUEUES, mmio=MMIO, shard="two")

        until(lambda: again.call("rings")[0] > 0, "it rings in another shard")
        vm.stop()
