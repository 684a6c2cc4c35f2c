"""Shards that die or hang while the guest runs: what it sees is what the policy of the range says."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import msgspec
import pytest

from shardio import Machine
from shardio.dispatcher import ExitInfo
from tests.e2e.devices import Fatal, Pattern
from tests.e2e.support import (
    MMIO,
    NEVER,
    PATIENCE_S,
    add_exit_port,
    fragments,
    let_end,
    machine,
    result,
    until,
)
from tests.guests.build import guest
from tests.guests.model import AccessRange, presets, random_accesses

pytestmark = [pytest.mark.machine, pytest.mark.timeout(120)]

VCPUS, SHARDS = 2, 2
KILLS_A_SHARD = 4
"""One more within 10 s would be one too many: the shard would be given up."""
SEED = 0xBAD5EED
STRIDES = (Pattern.pio_size, Pattern.mmio_size)
RANGES = [
    (AccessRange(0x1000, 0xFF, mmio=False, strings=True), "shard0", False),
    (AccessRange(0x2000, 0xFF, mmio=False, strings=True), "shard1", True),
    (AccessRange(MMIO, 0xFFF, mmio=True, strings=True), "shard1", False),
    (AccessRange(MMIO + 0x10_0000, 0xFFF, mmio=True, strings=True), "shard0", True),
]
ENDED = ExitInfo("exit", status=0)
ONES = 0xFFFF_FFFF


# ---- killed from outside ----


def served(vm: Machine, shard: int) -> tuple[int, int]:
    """A shard's process (0: none lives) and how much it and its predecessors have served."""
    seen = vm.statistics().shards[shard]
    return seen.pid, seen.served


def kill_at(vm: Machine, shard: int, later: int) -> None:
    """SIGKILLs a shard once it has served `later` more."""
    goal = served(vm, shard)[1] + later
    found = [0]

    def there() -> bool:
        found[0], progress = served(vm, shard)
        return found[0] != 0 and progress >= goal

    until(there, f"shard {shard} at {goal}")
    os.kill(found[0], signal.SIGKILL)


def expected(vcpu: int, count: int) -> int:
    """The checksum of what `vcpu` reads in `count` accesses."""
    device = Pattern()
    bases = [range_.base for range_, _, _ in RANGES]

    def read(mmio: bool, address: int, width: int) -> int:
        parts = fragments(address, width) if mmio else [(address, width)]
        base = max(each for each in bases if each <= address)
        return sum(device.read(at - base, size) << 8 * (at - address) for at, size in parts)

    return random_accesses(vcpu, count, SEED, [each[0] for each in RANGES], STRIDES, read, lambda *_: None)


def scene(vm: Machine) -> None:
    """Loads the guest, adds its devices."""
    strides = {"PIO_STRIDE": STRIDES[False], "MMIO_STRIDE": STRIDES[True]}
    ranges = presets([each[0] for each in RANGES])
    vm.load(guest("random_access", VCPUS=VCPUS, COUNT=NEVER, SEED=SEED, **strides, **ranges))
    for range_, shard, posted in RANGES:
        space, size = ("mmio", VCPUS * STRIDES[True]) if range_.mmio else ("pio", VCPUS * STRIDES[False])
        place = {space: range_.base, "size": size}
        vm.add(Pattern, **place, shard=shard, posted=posted, policy="replay")
    add_exit_port(vm)


def assert_unharmed(vm: Machine, count: int) -> None:
    """Both vCPUs have read what they must, and nothing was refused or given up."""
    statistics = vm.statistics()
    assert [device.refused for device in statistics.devices] == [0] * len(statistics.devices)
    assert not any(shard.quarantined for shard in statistics.shards)
    assert [each.malformed for each in (*statistics.vcpus, *statistics.shards) if each.malformed] == []
    assert [result(vm, 4, vcpu) for vcpu in range(VCPUS)] == [expected(vcpu, count) for vcpu in range(VCPUS)]


def test_kills_of_shards_with_replayable_devices_only_lengthen_accesses() -> None:
    chance = random.Random(SEED)
    with machine(vcpus=VCPUS, shards=SHARDS) as vm:
        scene(vm)
        vm.start()

        for number in range(SHARDS * KILLS_A_SHARD):
            kill_at(vm, number % SHARDS, chance.randrange(1, 200))

        count = let_end(vm, VCPUS)
        vm.stop()
        assert [shard.spawns for shard in vm.statistics().shards[:SHARDS]] == [1 + KILLS_A_SHARD] * SHARDS
        assert_unharmed(vm, count)


# The software CPU resumes no worker that is killed while it executes the guest: tests/soft/test_kills.py.
@pytest.mark.kvm
def test_workers_and_shards_killed_together() -> None:
    chance = random.Random(SEED + 1)
    with machine(vcpus=VCPUS, shards=SHARDS) as vm:
        scene(vm)
        vm.start()

        for number in range(SHARDS * KILLS_A_SHARD):
            kill_at(vm, number % SHARDS, chance.randrange(1, 100))
            # Most likely a vCPU waits for the shard that has just died.
            for pid in [vcpu.pid for vcpu in vm.statistics().vcpus if vcpu.pid]:
                os.kill(pid, signal.SIGKILL)

        count = let_end(vm, VCPUS)
        vm.stop()
        assert_unharmed(vm, count)


# ---- devices that end or stop their own process ----


class Scene:
    """A guest that makes `count` accesses to a `Fatal` device with `lives`; the exit port is on another
    shard.
    """

    def __init__(self, folder: Path, lives: int, *, write: bool, count: int, way: str = "kill",
                 policy: str | None = None, deadline: float = 1.0) -> None:  # fmt: skip
        lives_file, log = folder / "lives", folder / "log"
        lives_file.write_bytes(bytes(lives))
        with machine(shards=2, hang_deadline=deadline) as vm:
            vm.load(guest("mmio_loop", COUNT=count, WRITE=int(write)))
            options = {
                "lives": str(lives_file),
                "log": str(log),
                "way": way,
                "on": "write" if write else "read",
            }
            vm.add(Fatal, mmio=MMIO, shard="fatal", policy=policy, **options)
            add_exit_port(vm, shard="other")
            vm.start()
            self.ended = vm.wait(PATIENCE_S)
            self.read = result(vm, 4)
            vm.stop()
            statistics = vm.statistics()
        self.log = log.read_text().splitlines()
        self.device, self.shard = statistics.devices[0], statistics.shards[0]


def test_a_read_that_killed_its_owner_is_replayed_by_the_successor(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1, write=False, count=1)
    assert (scene.ended, scene.read, scene.log) == (ENDED, 0x11, ["read 0x0"] * 2)
    assert (scene.device.refused, scene.shard.spawns) == (0, 2)


def test_a_write_that_killed_its_owner_is_dropped_not_repeated(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1, write=True, count=3)
    assert (scene.ended, scene.log) == (ENDED, ["write 0x0"] * 3)
    assert (scene.device.refused, scene.shard.spawns) == (1, 2)


def test_policy_fail_gives_all_ones_for_a_read(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1, write=False, count=1, policy="fail")
    assert (scene.ended, scene.read, scene.log) == (ENDED, ONES, ["read 0x0"])
    assert (scene.device.refused, scene.shard.spawns) == (1, 2)


def test_policy_replay_repeats_a_write(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1, write=True, count=3, policy="replay")
    assert (scene.ended, scene.log) == (ENDED, ["write 0x0"] * 4)
    assert (scene.device.refused, scene.shard.spawns) == (0, 2)


@pytest.mark.parametrize(("write", "policy"), [(False, None), (True, "replay")], ids=["read", "write"])
def test_a_request_that_kills_two_owners_quarantines_its_range(
    tmp_path: Path, write: bool, policy: str | None
) -> None:
    scene = Scene(tmp_path, 2, write=write, count=5, policy=policy)
    assert scene.ended == msgspec.structs.replace(ENDED, quarantined=("Fatal",))
    assert len(scene.log) == 2
    assert (scene.device.refused, scene.shard.spawns, scene.shard.quarantined) == (5, 3, False)


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_a_shard_that_dies_five_times_is_given_up(tmp_path: Path, write: bool) -> None:
    scene = Scene(tmp_path, 5, write=write, count=8, policy="fail")
    assert scene.ended is not None
    assert (scene.ended.reason, scene.ended.status) == ("exit", 0)
    assert "Fatal" in scene.ended.quarantined  # beside what else its shard held
    assert len(scene.log) == 5
    assert (scene.device.refused, scene.shard.spawns, scene.shard.quarantined) == (8, 5, True)


# tests/supervisor/test_supervisor.py has each way in both directions.
@pytest.mark.parametrize(("way", "write"), [("stop", False), ("hang", True), ("spin", False)])
def test_a_hanging_shard_counts_as_dead_after_its_deadline(tmp_path: Path, write: bool, way: str) -> None:
    scene = Scene(tmp_path, 1, write=write, count=2, way=way, policy="replay", deadline=0.3)
    assert scene.ended == ENDED
    assert len(scene.log) == 3
    assert (scene.device.refused, scene.shard.spawns) == (0, 2)
