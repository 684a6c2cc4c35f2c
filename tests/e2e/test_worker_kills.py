"""SIGKILL of vCPU workers at any instruction: the guest does not notice, each access happens once."""

from __future__ import annotations

import os
import random
import signal

import pytest

from shardio import Machine
from shardio.dispatcher import DeviceHandle
from tests.e2e.devices import Sequencer
from tests.e2e.support import MMIO, NEVER, add_exit_port, fragments, let_end, machine, result, until
from tests.guests.build import guest
from tests.guests.model import AccessRange, RandomAccesses, presets

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(120)]

VCPUS = 2
KILLS = 200
SEED = 0xC0FFEE
STRIDES = (Sequencer.pio_size, Sequencer.mmio_size)
# Ports and memory, posted or not, on either shard; the last ones lie across a page's end.
RANGES = [
    (AccessRange(0x1000, 0xFF, mmio=False, strings=True), 0x1000, "shard0", False),
    (AccessRange(0x2000, 0xFF, mmio=False, strings=True), 0x2000, "shard1", True),
    (AccessRange(MMIO, 0x7FF, mmio=True, strings=True), MMIO, "shard0", True),
    (AccessRange(MMIO + 0x10_0000, 0x7FF, mmio=True, strings=True), MMIO + 0x10_0000, "shard1", False),
    (AccessRange(MMIO + 0x20_0FE0, 0x1F, mmio=True, strings=False), MMIO + 0x20_0000, "shard1", True),
    (AccessRange(MMIO + 0x30_0FE0, 0x1F, mmio=True, strings=False), MMIO + 0x30_0000, "shard0", False),
]


class Model:
    """The devices of one vCPU, as the guest sees them through KVM."""

    def __init__(self, vcpu: int) -> None:
        self.bases = [base + vcpu * STRIDES[range_.mmio] for range_, base, _, _ in RANGES]
        self.devices = [Sequencer() for _ in RANGES]
        self.accesses = RandomAccesses(
            vcpu, SEED, [each[0] for each in RANGES], STRIDES, self.read, self.write
        )

    def read(self, mmio: bool, address: int, width: int) -> int:
        """One access, as the parts that reach the device."""
        value = 0
        for at, size in self._parts(mmio, address, width):
            device, base = self._device(at)
            value |= device.read(at - base, size) << 8 * (at - address)
        return value

    def write(self, mmio: bool, address: int, width: int, value: int) -> None:
        """The same for a write."""
        for at, size in self._parts(mmio, address, width):
            device, base = self._device(at)
            device.write(at - base, size, value >> 8 * (at - address) & ((1 << 8 * size) - 1))

    def run(self, count: int) -> tuple[int, list[int]]:
        """The checksum after `count` accesses, and each device's state."""
        for _ in range(count):
            self.accesses.make_one()
        return self.accesses.checksum, [device.value() for device in self.devices]

    def _parts(self, mmio: bool, address: int, width: int) -> list[tuple[int, int]]:
        return fragments(address, width) if mmio else [(address, width)]

    def _device(self, address: int) -> tuple[Sequencer, int]:
        number = max(i for i, base in enumerate(self.bases) if base <= address)
        return self.devices[number], self.bases[number]


def build(vm: Machine) -> list[list[DeviceHandle]]:
    """Loads the guest and adds the devices of each vCPU."""
    strides = {"PIO_STRIDE": STRIDES[False], "MMIO_STRIDE": STRIDES[True]}
    ranges = presets([each[0] for each in RANGES])
    vm.load(guest("random_access", VCPUS=VCPUS, COUNT=NEVER, SEED=SEED, **strides, **ranges))
    add_exit_port(vm)
    return [
        [
            vm.add(Sequencer, **{space: base + vcpu * STRIDES[range_.mmio]}, shard=shard, posted=posted)
            for range_, base, shard, posted in RANGES
            for space in ("mmio" if range_.mmio else "pio",)
        ]
        for vcpu in range(VCPUS)
    ]


def progress(vm: Machine, vcpu: int) -> tuple[int, int]:
    """A vCPU's worker (0: none lives), and how often it has left the guest for an access."""
    seen = vm.statistics().vcpus[vcpu]
    return seen.pid, sum(seen.exits.values())


def kill_at(vm: Machine, vcpu: int, later: int, last: int) -> int:
    """SIGKILLs the worker that followed `last`, `later` exits from now at the soonest; gives its pid."""
    goal = progress(vm, vcpu)[1] + later
    found = [last]

    def there() -> bool:
        found[0], exits = progress(vm, vcpu)
        return found[0] not in (0, last) and exits >= goal

    until(there, f"a worker after {last} at {goal} exits")
    os.kill(found[0], signal.SIGKILL)
    return found[0]


def test_200_kills_of_workers_and_every_access_happens_once() -> None:
    chance = random.Random(SEED)
    with machine(vcpus=VCPUS, shards=2) as vm:
        handles = build(vm)
        vm.start()
        last = [0] * VCPUS

        for number in range(KILLS):
            vcpu = number % VCPUS
            last[vcpu] = kill_at(vm, vcpu, chance.randrange(12), last[vcpu])

        count = let_end(vm, VCPUS)
        seen = [
            (result(vm, 4, vcpu), [handle.call("value") for handle in handles[vcpu]]) for vcpu in range(VCPUS)
        ]
        vm.stop()
        statistics = vm.statistics()
    assert seen == [Model(vcpu).run(count) for vcpu in range(VCPUS)]
    assert sum(vcpu.spawns for vcpu in statistics.vcpus) > KILLS // 2
    assert sum(device.refused for device in statistics.devices) == 0
    assert sum(each.malformed for each in (*statistics.vcpus, *statistics.shards)) == 0


def test_a_worker_killed_before_its_first_instruction_is_followed_by_another() -> None:
    with machine(vcpus=VCPUS, shards=2) as vm:
        build(vm)
        vm.start()
        last = 0

        for _ in range(20):
            last = kill_at(vm, 0, 0, last)

        count = let_end(vm, VCPUS)
        checksums = [result(vm, 4, vcpu) for vcpu in range(VCPUS)]
    assert checksums == [Model(vcpu).run(count)[0] for vcpu in range(VCPUS)]


def test_a_worker_killed_while_it_is_paused_stays_paused_and_goes_on() -> None:
    with machine(vcpus=VCPUS, shards=2) as vm:
        handles = build(vm)
        vm.start()
        last = 0

        for _ in range(10):
            last = kill_at(vm, 0, 5, last)
            vm.pause()
            last = kill_at(vm, 0, 0, 0)
            before = progress(vm, 0)[1]
            until(lambda: progress(vm, 0)[0] not in (0, last), "another worker")  # noqa: B023
            vm.pause()
            assert progress(vm, 0)[1] == before
            vm.resume()

        count = let_end(vm, VCPUS)
        seen = [
            (result(vm, 4, vcpu), [handle.call("value") for handle in handles[vcpu]]) for vcpu in range(VCPUS)
        ]
    assert seen == [Model(vcpu).run(count) for vcpu in range(VCPUS)]
