"""What devices may be, under a real guest: immutable and replicated, failing, reaching into guest memory,
ending it.
"""

from __future__ import annotations

import pytest

from shardio import MachineError, MutDeviceMmio
from shardio.device import DeviceHost
from shardio.devices import Failing
from shardio.dispatcher import ExitInfo
from tests.e2e.devices import Pattern, Recorder
from tests.e2e.support import MMIO, PATIENCE_S, add_exit_port, machine, result
from tests.guests.build import buffer_address, guest

pytestmark = pytest.mark.machine

ENDED = ExitInfo("exit", status=0)


# ---- replicas ----


@pytest.mark.parametrize("write", [0, 1], ids=["read", "write"])
def test_each_vcpu_asks_the_nearest_replica(write: int) -> None:
    count = 200
    with machine(vcpus=2, shards=2) as vm:
        vm.load(guest("mmio_loop", VCPUS=2, COUNT=count, WRITE=write))
        device = vm.add(Pattern, mmio=MMIO, replicas=2)
        add_exit_port(vm)
        ended = vm.run(PATIENCE_S)
        read = [result(vm, 4, vcpu) for vcpu in range(2)]
        statistics = vm.statistics()
    served = [shard.served for shard in statistics.shards if shard.spawns]
    assert ended == ENDED
    assert device.shards == ("shard0", "shard1")
    assert sorted(served) == [count, count + 1]  # the exit port's write
    assert read == [[Pattern().read(0, 4)] * 2, [0, 0]][write]


def test_a_mutable_device_has_one_owner() -> None:
    with machine(shards=2) as vm:
        with pytest.raises(MachineError, match="exactly one owner"):
            vm.add(Recorder, mmio=MMIO, size=0x1000, replicas=2)


# ---- failures ----


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("write", [0, 1], ids=["read", "write"])
def test_a_handler_that_raises_spoils_that_access_alone(write: int, every: int) -> None:
    count = 9
    with machine(shards=1) as vm:
        vm.load(guest("mmio_loop", COUNT=count, WRITE=write))
        vm.add(Failing, mmio=MMIO, every=every)
        add_exit_port(vm)
        ended = vm.run(PATIENCE_S)
        read = result(vm, 4)
        statistics = vm.statistics()
    assert ended == ENDED
    assert statistics.devices[0].refused == count // every
    assert (statistics.shards[0].spawns, statistics.shards[0].quarantined) == (1, False)
    assert read == [0xFFFF_FFFF, 0][write]  # the last read fails, whatever `every` is


# ---- guest memory ----


class Copier(MutDeviceMmio):
    """A write of an address copies 16 bytes from there to the next 16; a read gives how often."""

    mmio_size = 0x1000
    dma = True

    def attach(self, host: DeviceHost) -> None:
        """Keep the memory."""
        assert host.memory is not None
        self.memory = host.memory
        self.copies = 0

    def read(self, offset: int, size: int) -> int:
        """The number of copies."""
        return self.copies

    def write(self, offset: int, size: int, value: int) -> None:
        """Copy within guest memory."""
        self.memory.write(value + 16, self.memory.read(value, 16))
        self.copies += 1


def test_a_device_with_dma_reads_and_writes_guest_memory() -> None:
    address = buffer_address(0)
    with machine(shards=1) as vm:
        # The guest's one write has the value of its count.
        vm.load(guest("mmio_loop", COUNT=1))
        vm.memory.write(address, bytes(range(16)))
        copier = vm.add(Copier, mmio=MMIO)
        add_exit_port(vm)
        vm.start()
        vm.wait(PATIENCE_S)
        copier.call("write", 0, 4, address)
        copied, copies = vm.memory.read(address, 32), copier.call("read", 0, 4)
    assert copied == bytes(range(16)) * 2
    assert copies == 2


def test_a_device_without_dma_has_no_guest_memory() -> None:
    class Nosy(Copier):
        dma = False

    with machine(shards=1) as vm:
        vm.load(guest("mmio_loop", COUNT=1))
        vm.add(Nosy, mmio=MMIO)
        with pytest.raises(MachineError, match="AssertionError"):
            vm.start()


# ---- ends ----


@pytest.mark.parametrize("status", [0, 255])
def test_the_exit_port_s_status_is_the_machine_s(status: int) -> None:
    with machine(shards=1) as vm:
        vm.load(guest("hello", EXIT_CODE=status))
        add_exit_port(vm)
        ended = vm.run(PATIENCE_S)
    assert ended == ExitInfo("exit", status=status)


class Resetter(MutDeviceMmio):
    """Asks for a reset when it is read or written."""

    mmio_size = 0x1000

    def attach(self, host: DeviceHost) -> None:
        """Keep the host."""
        self.host = host

    def read(self, offset: int, size: int) -> int:
        """Reset."""
        self.host.reset()
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Reset."""
        self.host.reset()


@pytest.mark.parametrize("write", [0, 1], ids=["read", "write"])
def test_a_device_asks_for_a_reset(write: int) -> None:
    with machine(shards=1) as vm:
        vm.load(guest("mmio_loop", COUNT=1, WRITE=write))
        vm.add(Resetter, mmio=MMIO)
        ended = vm.run(PATIENCE_S)
    assert ended == ExitInfo("reset")
