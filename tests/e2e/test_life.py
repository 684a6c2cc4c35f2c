"""Pause, resume, stop, devices that come and go, all while the guest is busy; and a VMM that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shardio import Machine, MachineError, ShardError
from shardio.devices import Counter, Echo
from shardio.dispatcher import ExitInfo
from tests.conftest import shm_names
from tests.e2e.devices import Recorder, Slow, Visits
from tests.e2e.support import MMIO, NEVER, PATIENCE_S, add_exit_port, machine, result, until
from tests.guests.build import guest

pytestmark = [pytest.mark.machine, pytest.mark.timeout(120)]

VCPUS = 2
ROOT = Path(__file__).resolve().parent.parent.parent
SHARED_DEATH_S = 1.0
"""Within this nothing may be left of a VMM that was killed."""


def exits(vm: Machine) -> list[int]:
    """How often each vCPU has left the guest."""
    return [sum(vcpu.exits.values()) for vcpu in vm.statistics().vcpus]


def run_on(vm: Machine, more: int = 20) -> None:
    """Returns when every vCPU has made some more exits."""
    goal = [each + more for each in exits(vm)]
    until(lambda: all(now >= then for now, then in zip(exits(vm), goal, strict=True)), "the guest runs on")


def busy(vm: Machine, **presets: int) -> None:
    """A guest that writes to its devices without an end."""
    vm.load(guest("mmio_loop", **{"VCPUS": VCPUS, "STRIDE": 0x1000, "COUNT": NEVER, **presets}))
    add_exit_port(vm, shard="other")


# ---- pause, resume, stop ----


def sum_after(writes: int) -> int:
    """What a `Counter` holds after so many writes of the guest: they count down from NEVER."""
    return (writes * NEVER - writes * (writes - 1) // 2) & 0xFFFF_FFFF


@pytest.mark.parametrize("posted", [False, True], ids=["waiting", "posted"])
def test_paused_vcpus_make_no_access_and_none_is_lost(posted: bool) -> None:
    with machine(vcpus=VCPUS, shards=2) as vm:
        busy(vm)
        counters = [
            vm.add(Counter, mmio=MMIO + 0x1000 * vcpu, shard=f"shard{vcpu}", posted=posted)
            for vcpu in range(VCPUS)
        ]
        vm.start()

        for _ in range(20):
            run_on(vm, 10)
            vm.pause()
            before = exits(vm)
            expected = [sum_after(vcpu.exits["MMIO"]) for vcpu in vm.statistics().vcpus]
            # What was posted arrives in a moment; what was waited for is there.
            until(lambda: [counter.call("read", 0, 4) for counter in counters] == expected, "sums", 5.0)  # noqa: B023
            assert exits(vm) == before
            vm.resume()


def test_posted_writes_reach_their_device_before_the_machine_has_stopped(tmp_path: Path) -> None:
    log, count = tmp_path / "visits", 300
    with machine(vcpus=VCPUS, shards=2) as vm:
        busy(vm, STRIDE=0, COUNT=count)
        vm.add(Slow, mmio=MMIO, path=str(log), shard="shard0", posted=True)
        ended = vm.run(PATIENCE_S)
        visited = [int(line) for line in log.read_text().split()]
    assert ended == ExitInfo("exit", status=0)
    assert visited == [VCPUS * count]


@pytest.mark.parametrize("posted", [False, True], ids=["waiting", "posted"])
def test_stop_under_load_ends_everything_at_once(posted: bool) -> None:
    with machine(vcpus=VCPUS, shards=2) as vm:
        busy(vm)
        vm.add(Counter, mmio=MMIO, size=0x2000, shard="shard0", posted=posted)
        vm.start()
        run_on(vm)

        began = time.monotonic()
        vm.stop()
        took = time.monotonic() - began

        ended, statistics = vm.wait(0), vm.statistics()
    assert took < 2.0  # the grace of those that have to be killed
    assert ended == ExitInfo("stopped")
    assert [vcpu.pid for vcpu in statistics.vcpus] == [0] * VCPUS
    assert {shard.pid for shard in statistics.shards} == {0}


def test_stop_while_paused() -> None:
    with machine(vcpus=VCPUS, shards=2) as vm:
        busy(vm)
        vm.add(Counter, mmio=MMIO, size=0x2000)
        vm.start()
        vm.pause()
        vm.stop()
        ended = vm.wait(0)
    assert ended == ExitInfo("stopped")


# ---- devices that come and go ----


@pytest.mark.parametrize("write", [0, 1], ids=["read", "write"])
def test_every_access_finds_a_device_that_is_there_or_nobody(tmp_path: Path, write: int) -> None:
    log = tmp_path / "visits"
    with machine(vcpus=VCPUS, shards=2) as vm:
        busy(vm, WRITE=write, STRIDE=0)
        vm.start()
        run_on(vm)

        for number in range(10):
            device = vm.add(Visits, mmio=MMIO, path=str(log), shard=f"shard{number & 1}")
            run_on(vm)
            vm.remove(device)
            assert len(log.read_text().splitlines()) == number + 1, (
                "remove() came back before the device was gone"
            )
            run_on(vm)

        vm.pause()
        vcpus = vm.statistics().vcpus
        visited = [int(line) for line in log.read_text().split()]
    accesses = sum(vcpu.exits["MMIO"] for vcpu in vcpus)
    unclaimed = [sum(vcpu.unclaimed_reads for vcpu in vcpus), sum(vcpu.unclaimed_writes for vcpu in vcpus)]
    assert all(visited)
    assert unclaimed[1 - write] == 0
    assert unclaimed[write] + sum(visited) == accesses


def test_posted_writes_reach_a_device_that_is_taken_out(tmp_path: Path) -> None:
    log = tmp_path / "visits"
    with machine(vcpus=VCPUS, shards=2) as vm:
        busy(vm, STRIDE=0)
        vm.start()

        for _ in range(5):
            device = vm.add(Visits, mmio=MMIO, path=str(log), shard="shard0", posted=True)
            run_on(vm, 100)
            vm.remove(device)

        vm.pause()
        vcpus = vm.statistics().vcpus
        visited = [int(line) for line in log.read_text().split()]
    accesses = sum(vcpu.exits["MMIO"] for vcpu in vcpus)
    assert sum(vcpu.unclaimed_writes for vcpu in vcpus) + sum(visited) == accesses


def test_a_device_on_a_new_shard_answers_a_running_guest() -> None:
    with machine(vcpus=VCPUS, shards=1) as vm:
        busy(vm, WRITE=0, STRIDE=0)
        vm.start()
        run_on(vm)

        echo = vm.add(Echo, mmio=MMIO, shard="late")
        echo.call("write", 0, 4, 0x1234_5678)
        run_on(vm)

        late = next(device for device in vm.statistics().devices if device.name == echo.name)
    assert echo.shards == ("late",)
    assert late.shard == "late"
    assert late.reads > 0


def test_a_device_that_cannot_be_made_leaves_the_guest_as_it_was() -> None:
    with machine(vcpus=VCPUS, shards=2) as vm:
        busy(vm)
        kept = vm.add(Recorder, mmio=MMIO, size=0x2000, shard="shard0")
        vm.start()
        run_on(vm)

        with pytest.raises(MachineError, match="no such hardware"):
            vm.add(Wordy, mmio=MMIO + 0x10_0000, size=0x1000, shard="shard0")
        run_on(vm)

        replaced = vm.add(Recorder, mmio=MMIO + 0x10_0000, size=0x1000, shard="shard0")
        vm.pause()
        served = len(kept.call("log")), len(replaced.call("log"))
    assert served[0] > 0
    assert served[1] == 0


class EndsItsShard(Recorder):
    """Its constructor ends the process."""

    def __init__(self) -> None:
        os._exit(3)


def test_a_device_that_ends_its_shard_is_not_given_to_the_successor() -> None:
    with machine(vcpus=VCPUS, shards=["one"]) as vm:
        busy(vm)
        vm.add(Counter, mmio=MMIO, size=0x2000, name="first", shard="one")
        vm.start()
        with pytest.raises(ShardError, match="exit status 3"):
            vm.add(EndsItsShard, mmio=MMIO + 0x10_0000, size=0x1000, shard="one")
        vm.add(Echo, mmio=MMIO + 0x10_0000, shard="one")
        run_on(vm)
        (shard,) = (shard for shard in vm.statistics().shards if shard.name == "one")
        assert shard.spawns == 2


class Wordy(Recorder):
    """Its constructor fails with two lines."""

    def __init__(self) -> None:
        raise RuntimeError("no such\nhardware")


def test_what_a_constructor_raises_is_one_line() -> None:
    with machine() as vm:
        busy(vm, VCPUS=1)
        vm.add(Wordy, mmio=MMIO, size=0x1000)
        with pytest.raises(MachineError) as caught:
            vm.start()
        assert str(caught.value).endswith("constructor: RuntimeError: no such hardware")


def test_an_entry_mode_that_does_not_exist_is_refused_with_the_image() -> None:
    with machine() as vm, pytest.raises(MachineError, match="use one of real, protected, long"):
        vm.load(b"\xf4", mode="flat")


def test_a_machine_whose_device_cannot_be_made_starts_nothing() -> None:
    with machine(vcpus=VCPUS, shards=2) as vm:
        busy(vm)
        vm.add(Wordy, mmio=MMIO, size=0x2000)
        with pytest.raises(MachineError, match="no such hardware"):
            vm.start()
        assert result(vm, 0) == 0


# ---- a VMM that is killed ----

VMM = """
from tests.e2e.support import MMIO, NEVER, machine
from tests.guests.build import guest

with machine(vcpus=2, shards=2) as vm:
    vm.load(guest("mmio_loop", VCPUS=2, STRIDE=0x1000, COUNT=NEVER))
    vm.add("shardio.devices:Echo", mmio=MMIO, shard="a")
    vm.add("shardio.devices:Counter", mmio=MMIO + 0x1000, shard="b", posted=True)
    vm.start()
    while not all(device.writes > 100 for device in vm.statistics().devices[:2]):
        pass
    seen = vm.statistics()
    pids = [vcpu.pid for vcpu in seen.vcpus] + [shard.pid for shard in seen.shards if shard.pid]
    print(*pids, flush=True)
    vm.wait()
"""


def alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def test_nothing_is_left_of_a_vmm_that_is_killed() -> None:
    names = shm_names()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", VMM], stdout=subprocess.PIPE, env=environment) as vmm:
        assert vmm.stdout is not None
        pids = [int(word) for word in vmm.stdout.readline().split()]
        living = [alive(pid) for pid in pids]

        vmm.send_signal(signal.SIGKILL)
        began = time.monotonic()
        until(lambda: not any(map(alive, pids)), "every process is gone", SHARED_DEATH_S)
        took = time.monotonic() - began
    assert living == [True] * 4
    assert took < SHARED_DEATH_S
    assert shm_names() - names == set()


def test_a_device_that_is_removed_leaves_its_range_its_place_and_no_counts() -> None:
    with machine(shards=2, max_ranges=1) as vm:
        vm.load(guest("mmio_loop", COUNT=NEVER, WRITE=1))
        vm.start()
        shards = []
        for _ in range(3):
            device = vm.add("shardio.devices:Echo", mmio=MMIO)
            until(lambda: vm.statistics().devices[0].writes > 100, "it is written to")
            shards += device.shards
            vm.remove(device)
        unused = vm.add("shardio.devices:Echo", mmio=MMIO + 0x10_0000)

        assert [*shards, *unused.shards] == [shards[0]] * 4
        assert vm.statistics().devices[0].writes == 0
