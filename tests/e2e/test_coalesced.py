"""Posted writes through KVM's coalesced ring: all of them, in order, no exit while the ring has room."""

from __future__ import annotations

import os
import signal

import pytest

from shardio import Machine, MachineError
from tests.e2e.support import MMIO, NEVER, PATIENCE_S, add_exit_port, result, until
from tests.guests.build import guest

pytestmark = pytest.mark.kvm

TALLY = "tests.e2e.irq_devices:Tally"
PORT = 0x500
COUNT = 2000
EVERY = 16


@pytest.mark.parametrize("pio", [False, True])
def test_a_read_finds_all_writes_before_it(pio: bool) -> None:
    address = PORT if pio else MMIO
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("coalesced", ADDRESS=address, PIO=int(pio), COUNT=COUNT, EVERY=EVERY))
        place = (address, None) if pio else (None, address)
        device = vm.add(TALLY, pio=place[0], mmio=place[1], posted="coalesced", shard="one")
        add_exit_port(vm, shard="two")
        vm.start()

        ended = vm.wait(PATIENCE_S)
        counts = device.call("counts")
        vm.stop()

        wrong, last = result(vm, 4), result(vm, 8)
        statistics = vm.statistics()
    assert ended is not None
    assert (ended.reason, ended.status) == ("exit", 0)
    assert (wrong, last, counts) == (0, COUNT, [COUNT, 0])
    # Only the reads and the exit port leave the guest: sixteen writes fit into the ring.
    assert sum(statistics.vcpus[0].exits.values()) == COUNT // EVERY + 1 + 1
    assert (statistics.devices[0].writes, statistics.devices[0].posted) == (COUNT, COUNT)


@pytest.mark.parametrize("pio", [False, True])
def test_what_finds_the_ring_full_is_an_exit_and_keeps_its_turn(pio: bool) -> None:
    address = PORT if pio else MMIO
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("coalesced", ADDRESS=address, PIO=int(pio), COUNT=COUNT, EVERY=0))
        place = (address, None) if pio else (None, address)
        device = vm.add(TALLY, pio=place[0], mmio=place[1], posted="coalesced", shard="one")
        add_exit_port(vm, shard="two")
        vm.start()
        os.kill(vm.statistics().shards[0].pid, signal.SIGSTOP)
        until(lambda: vm.statistics().devices[0].writes > 0, "the ring is full")
        os.kill(vm.statistics().shards[0].pid, signal.SIGCONT)

        ended = vm.wait(PATIENCE_S)
        counts = device.call("counts")
        vm.stop()

        device_statistics = vm.statistics().devices[0]
    assert ended is not None
    assert counts == [COUNT, 0]
    assert device_statistics.writes == COUNT
    assert device_statistics.posted < COUNT  # the others are the ring-full exits


def test_a_write_does_not_sit_in_the_ring() -> None:
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("doorbells", COUNT=10))
        device = vm.add(TALLY, mmio=MMIO, posted="coalesced", shard="one")
        add_exit_port(vm, shard="two")

        vm.start()

        until(lambda: vm.statistics().devices[0].writes == 10, "they are there though nothing is read")
        assert device.call("counts")[0] == 10


def test_a_successor_reads_on_and_a_device_that_goes_leaves_no_zone() -> None:
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("doorbells", COUNT=NEVER))
        device = vm.add(TALLY, mmio=MMIO, posted="coalesced", shard="one")
        vm.start()
        until(lambda: device.call("counts")[0] > 1000, "writes come")

        os.kill(vm.statistics().shards[0].pid, signal.SIGKILL)
        until(lambda: vm.statistics().shards[0].spawns == 2, "there is a successor")
        until(lambda: device.call("counts")[0] > 1000, "writes come again")
        vm.remove(device)

        before = vm.statistics().vcpus[0].unclaimed_writes
        until(lambda: vm.statistics().vcpus[0].unclaimed_writes > before, "writes are exits and go nowhere")


def test_one_shard_reads_the_ring() -> None:
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("hlt"))
        vm.add(TALLY, mmio=MMIO, posted="coalesced", shard="one")
        vm.add(TALLY, mmio=MMIO + 0x1000, posted="coalesced", shard="two")

        with pytest.raises(MachineError, match="read by shard 'one'"):
            vm.start()


def test_posted_is_yes_no_or_coalesced() -> None:
    with Machine(memory="2M") as vm, pytest.raises(MachineError, match="coalesced"):
        vm.add(TALLY, mmio=MMIO, posted="sometimes")
