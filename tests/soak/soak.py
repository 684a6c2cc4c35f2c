"""The soak: random accesses of 2 vCPUs to 8 ranges on 2 shards, for as long as asked, against a model of the
devices.

Ranges are ports and memory, posted and not, on either shard; accesses are of each width, strings, and across
page ends. Every few seconds the guest is paused, its checksums are held against the model's, and it goes on;
the memory and the descriptors of all processes are noted. `python -m tests.soak.soak SECONDS` runs it by
hand.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from shardio import Machine
from shardio.devices import Echo
from shardio.dispatcher import MachineStatistics
from tests.guests.build import guest, parameters, result_address
from tests.guests.model import AccessRange, RandomAccesses, presets

VCPUS = 2
PIO_SIZE, MMIO_SIZE = 0x400, 0x1_0000
STRIDES = (0x200, 0x8000)
# Of the accesses that one vCPU can make before the guest stops, none is ever the last by itself.
NEVER = 0xFFFF_FFFF


@dataclass(frozen=True)
class Usage:
    """What one process holds: private memory in KiB (RssAnon), open descriptors."""

    memory: int
    fds: int


@dataclass
class Report:
    """What a soak found. `differences`: where guest and model disagreed; usage by process name."""

    accesses: list[int] = field(default_factory=lambda: [0] * VCPUS)
    differences: list[str] = field(default_factory=list)
    checkpoints: int = 0
    first: dict[str, Usage] = field(default_factory=dict)
    last: dict[str, Usage] = field(default_factory=dict)
    seconds: float = 0.0
    status: int | None = None
    statistics: MachineStatistics | None = None

    @property
    def lost_wakeups(self) -> int:
        """Of all vCPUs and shards."""
        assert self.statistics is not None
        return sum(each.lost_wakeups for each in (*self.statistics.vcpus, *self.statistics.shards))

    @property
    def malformed(self) -> int:
        """Messages that made no sense to their reader."""
        assert self.statistics is not None
        return sum(each.malformed for each in (*self.statistics.vcpus, *self.statistics.shards))

    @property
    def memory_growth(self) -> int:
        """KiB by which the process that grew most has grown since the first checkpoint."""
        return max(usage.memory - self.first[name].memory for name, usage in self.last.items())

    @property
    def fd_growth(self) -> dict[str, int]:
        """Descriptors more (or fewer) than at the first checkpoint, by process, where they differ."""
        growth = {name: usage.fds - self.first[name].fds for name, usage in self.last.items()}
        return {name: more for name, more in growth.items() if more}

    def __str__(self) -> str:
        assert self.statistics is not None
        strings = sum(each.strings for each in self.statistics.devices)
        posted = sum(each.posted for each in self.statistics.devices)
        exits = sum(sum(each.exits.values()) for each in self.statistics.vcpus)
        return (
            f"{self.seconds:.0f} s, {sum(self.accesses):,} accesses in {exits:,} exits "
            f"({posted:,} posted, {strings:,} strings), {self.checkpoints} checkpoints, "
            f"{len(self.differences)} differences, {self.lost_wakeups} lost wake-ups, {self.malformed} bad, "
            f"memory growth {self.memory_growth} KiB, descriptors {self.fd_growth or 'flat'}"
        )


def ranges() -> list[tuple[AccessRange, str, bool]]:
    """The ranges, the shard of each, and whether it is posted."""
    found = []
    for number in range(4):
        shard, posted = f"shard{number & 1}", number >= 2
        found.append((AccessRange(0x1000 * (number + 1), 0xFF, mmio=False, strings=True), shard, posted))
        base = 0xD000_0000 + 0x10_0000 * number
        found.append((AccessRange(base, 0xFFF, mmio=True, strings=True), shard, posted))
    return found


def build(seed: int) -> Machine:
    """The machine, ready to start."""
    vm = Machine(memory="2M", vcpus=VCPUS, shards=2, hang_deadline=60.0)
    plan = ranges()
    strides = {"PIO_STRIDE": STRIDES[False], "MMIO_STRIDE": STRIDES[True]}
    image = guest(
        "random_access", VCPUS=VCPUS, COUNT=NEVER, SEED=seed, **strides, **presets([each[0] for each in plan])
    )
    vm.load(image)
    for range_, shard, posted in plan:
        where = (
            {"mmio": range_.base, "size": MMIO_SIZE}
            if range_.mmio
            else {"pio": range_.base, "size": PIO_SIZE}
        )
        vm.add(Echo, shard=shard, posted=posted, **where)
    vm.add("shardio.devices:ExitPort", pio=0xF4, raw=True)
    return vm


def models(seed: int) -> list[RandomAccesses]:
    """What each vCPU must do, with a memory of its own behind each space."""
    plan = [each[0] for each in ranges()]
    return [_model(vcpu, seed, plan, {False: Echo(), True: Echo()}) for vcpu in range(VCPUS)]


def soak(
    seconds: float, seed: int = 1, every: float = 10.0, tell: Callable[[str], None] | None = None
) -> Report:
    """Soaks for `seconds`, checking `every` so many, and then until the guest has come to its end."""
    report, expected = Report(), models(seed)
    with build(seed) as vm:
        vm.start()
        began = time.monotonic()
        next_check = began + every
        while (now := time.monotonic()) < began + seconds:
            if vm.wait(min(next_check, began + seconds) - now) is not None:
                raise AssertionError(f"the guest ended by itself: {vm.wait(0)}")
            if time.monotonic() >= next_check:
                _checkpoint(vm, expected, report)
                next_check = time.monotonic() + every
                if tell is not None:
                    _tell(tell, vm, report, time.monotonic() - began, seconds)
        _finish(vm, expected, report)
        report.seconds = time.monotonic() - began
    return report


def _checkpoint(vm: Machine, expected: list[RandomAccesses], report: Report) -> None:
    vm.pause()
    seen = [(_result(vm, vcpu, 8), _result(vm, vcpu, 4)) for vcpu in range(VCPUS)]
    vm.resume()
    for vcpu, (made, checksum) in enumerate(seen):
        # The guest is somewhere inside access `made`.
        _advance(expected[vcpu], made + 1)
        if checksum not in expected[vcpu].folds:
            report.differences.append(
                f"vCPU {vcpu}, access {made}: {checksum:#010x}, not {expected[vcpu].folds}"
            )
        report.accesses[vcpu] = made
    report.checkpoints += 1
    report.last = usage(vm)
    report.first = report.first or report.last


def _finish(vm: Machine, expected: list[RandomAccesses], report: Report) -> None:
    """Lets both vCPUs make the same number of accesses, and compares everything."""
    vm.pause()
    count = max(_result(vm, vcpu, 8) for vcpu in range(VCPUS)) + 1000
    vm.memory.write(parameters("random_access")["count"], count.to_bytes(4, "little"))
    vm.resume()
    ended = vm.wait(60)
    report.status = ended.status if ended is not None else None
    report.last = usage(vm)
    report.first = report.first or report.last
    vm.stop()
    report.statistics = vm.statistics()
    for vcpu in range(VCPUS):
        _advance(expected[vcpu], count)
        made, checksum = _result(vm, vcpu, 8), _result(vm, vcpu, 4)
        report.accesses[vcpu] = made
        if (made, checksum) != (count, expected[vcpu].checksum):
            report.differences.append(
                f"vCPU {vcpu}, at the end: {made} accesses, {checksum:#010x}, not "
                f"{count} and {expected[vcpu].checksum:#010x}"
            )


def usage(vm: Machine) -> dict[str, Usage]:
    """What the VMM and each live shard hold."""
    pids = {"vmm": os.getpid()} | {shard.name: shard.pid for shard in vm.statistics().shards if shard.pid}
    return {name: Usage(_anonymous(pid), len(os.listdir(f"/proc/{pid}/fd"))) for name, pid in pids.items()}


def _anonymous(pid: int) -> int:
    line = next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon:")
    )
    return int(line.split()[1])


def _model(vcpu: int, seed: int, plan: list[AccessRange], spaces: dict[bool, Echo]) -> RandomAccesses:
    return RandomAccesses(
        vcpu, seed, plan, STRIDES,
        lambda mmio, at, width: spaces[mmio].read(at, width),
        lambda mmio, at, width, value: spaces[mmio].write(at, width, value),
    )  # fmt: skip


def _advance(model: RandomAccesses, count: int) -> None:
    while model.made < count:
        model.make_one()


def _result(vm: Machine, vcpu: int, offset: int) -> int:
    return int.from_bytes(vm.memory.read(result_address(vcpu, offset), 4), "little")


def _tell(tell: Callable[[str], None], vm: Machine, report: Report, elapsed: float, seconds: float) -> None:
    statistics = vm.statistics()
    lost = sum(each.lost_wakeups for each in (*statistics.vcpus, *statistics.shards))
    tell(
        f"soak {elapsed:.0f}/{seconds:.0f} s: {sum(report.accesses):,} accesses, "
        f"{len(report.differences)} differences, {lost} lost wake-ups, "
        f"memory growth {report.memory_growth} KiB, descriptors {report.fd_growth or 'flat'}"
    )


if __name__ == "__main__":
    print(soak(float(sys.argv[1]), tell=print))
