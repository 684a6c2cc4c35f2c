"""The checksum matrix: an SMP guest's writes arrive whole and in order, on however many shards, posted or
not.
"""

from __future__ import annotations

import pytest

from shardio.devices import Checksum
from shardio.dispatcher import ExitInfo
from tests.e2e.support import MMIO, PATIENCE_S, add_exit_port, machine, result
from tests.guests.build import guest
from tests.guests.model import checksum_sequence

pytestmark = pytest.mark.machine

COUNT = 150
DEVICES = 3
STRIDE = 0x1000


def model(vcpus: int) -> list[int]:
    """The checksum of each device after all its writes, in the order of their addresses."""
    devices = [Checksum() for _ in range(DEVICES * vcpus)]
    for vcpu in range(vcpus):
        for device, value in checksum_sequence(vcpu, DEVICES, COUNT):
            devices[DEVICES * vcpu + device].write(0, 4, value)
    return [device.value for device in devices]


@pytest.mark.parametrize(
    ("vcpus", "shards", "posted"),
    [
        (1, 1, True), (1, 2, False), (1, 3, True),
        (2, 1, False), (2, 2, True), (2, 3, False),
        (4, 1, True), (4, 2, False), (4, 3, True), (4, 3, False),
    ],
)  # fmt: skip
def test_checksums_are_the_host_s(vcpus: int, shards: int, posted: bool) -> None:
    with machine(vcpus=vcpus, shards=shards) as vm:
        vm.load(guest("checksum", VCPUS=vcpus, DEVICES=DEVICES, COUNT=COUNT, STRIDE=STRIDE))
        handles = [
            vm.add(Checksum, mmio=MMIO + STRIDE * number, shard=f"shard{number % shards}", posted=posted)
            for number in range(DEVICES * vcpus)
        ]
        add_exit_port(vm)

        vm.start()
        ended = vm.wait(PATIENCE_S)
        held = [handle.call("read", 0, 8) for handle in handles]
        covered = [handle.call("read", 8, 8) for handle in handles]
        vm.stop()

        read = [result(vm, 8 + 8 * device, vcpu, 8) for vcpu in range(vcpus) for device in range(DEVICES)]
        statistics = vm.statistics()
    assert ended == ExitInfo("exit", status=0)
    assert held == model(vcpus)
    assert covered == [4 * COUNT] * (DEVICES * vcpus)
    assert read == held
    devices = [device for device in statistics.devices if device.name.startswith("Checksum")]
    assert [device.writes for device in devices] == [COUNT] * len(devices)
    assert [device.posted for device in devices] == [COUNT * posted] * len(devices)
    assert {device.shard for device in devices} == {f"shard{number}" for number in range(shards)}
    assert sum(each.malformed for each in (*statistics.vcpus, *statistics.shards)) == 0
    assert sum(vcpu.unclaimed_reads + vcpu.unclaimed_writes for vcpu in statistics.vcpus) == 0
