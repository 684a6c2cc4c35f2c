"""What a machine did between two looks at it: the values that `shardio top` shows, and `--json` prints.

`SCHEMA` is the version of that JSON: fields are added without a new one, and never change their meaning.
Rates are for each second, shares are of 1, times are in nanoseconds; null is what nobody knows.
"""

from __future__ import annotations

import msgspec

from shardio.control.messages import Status
from shardio.dispatcher.statistics import DeviceStatistics, ShardStatistics
from shardio.fabric.statistics import Histogram
from shardio.vcpu import VcpuStatistics

SCHEMA = 1


class VcpuSample(msgspec.Struct, frozen=True):
    """A vCPU: its exits, by reason, too, and the share of the time that it spent in guest code (`guest`), in
    handling its exits (`exit`; where the kernel does not tell that apart, `guest` has it, and this is null),
    waiting for devices (`wait`), and in none of these (`idle`). `unclaimed`, `crossing`: accesses that nobody
    claimed, and that ran past a range's end, ever.
    """

    index: int
    state: str
    pid: int
    exits_per_s: float
    exits: dict[str, float]
    guest: float
    exit: float | None
    wait: float
    idle: float
    unclaimed_per_s: float
    unclaimed: int
    last_unclaimed: str
    crossing: int


class DeviceSample(msgspec.Struct, frozen=True):
    """A device: its accesses, what share of the vCPUs' time went into waiting for it (`wait_share`), the
    percentiles of this while, and what was counted ever: `refused`, `interrupts`, `interrupts_dropped`.
    """

    name: str
    shard: str
    accesses_per_s: float
    reads_per_s: float
    writes_per_s: float
    posted_per_s: float
    wait_p50_ns: float
    wait_p99_ns: float
    service_p50_ns: float
    service_p99_ns: float
    wait_share: float
    refused_per_s: float
    refused: int
    last_refused: str
    interrupts_per_s: float
    interrupts: int
    interrupts_dropped: int


class ShardSample(msgspec.Struct, frozen=True):
    """A shard: the share of one CPU that it has used, and what its loop did; `recoveries`, `lost_wakeups` and
    `malformed` ever.
    """

    name: str
    pid: int
    cpu: float
    served_per_s: float
    yields_per_s: float
    sleeps_per_s: float
    recoveries: int
    lost_wakeups: int
    malformed: int
    quarantined: bool


class Sample(msgspec.Struct, frozen=True):
    """A machine over `seconds`. `state` is that of `shardio ls`; `ended`: how it ended, null before."""

    schema: int
    name: str
    pid: int
    state: str
    ended: str | None
    seconds: float
    vcpus: tuple[VcpuSample, ...]
    devices: tuple[DeviceSample, ...]
    shards: tuple[ShardSample, ...]


def sample(before: Status, now: Status) -> Sample:
    """What happened between two looks at one machine; what was not there before began at nothing."""
    seconds = max(1e-9, (now.time_ns - before.time_ns) / 1e9)
    old = before.statistics
    vcpus = dict(enumerate(old.vcpus))
    devices = {each.name: each for each in old.devices}
    shards = {each.name: each for each in old.shards}
    statistics = now.statistics
    count = len(statistics.vcpus)
    return Sample(
        SCHEMA,
        now.name,
        now.pid,
        now.state,
        None if now.ended is None else now.ended.reason,
        seconds,
        tuple(_vcpu(n, vcpus.get(n), each, seconds) for n, each in enumerate(statistics.vcpus)),
        tuple(_device(devices.get(each.name), each, seconds, count) for each in statistics.devices),
        tuple(_shard(shards.get(each.name), each, seconds) for each in statistics.shards),
    )


def times(before: Status, now: Status, device: str) -> tuple[Histogram, Histogram]:
    """The waits for a device and its service between two looks, in full."""
    old = {each.name: (each.waits, each.service) for each in before.statistics.devices}
    new = {each.name: (each.waits, each.service) for each in now.statistics.devices}
    waits, service = old.get(device, (_NONE, _NONE))
    now_waits, now_service = new.get(device, (_NONE, _NONE))
    return now_waits.since(waits), now_service.since(service)


_NONE = Histogram()


def _gain(old: float | None, new: float) -> float:
    """What a counter has gained; all of it, where it began anew."""
    return new if old is None or new < old else new - old


def _vcpu(index: int, old: VcpuStatistics | None, new: VcpuStatistics, seconds: float) -> VcpuSample:
    def gained(name: str) -> float:
        return _gain(None if old is None else getattr(old, name), getattr(new, name))

    def share(ns: float) -> float:
        return min(1.0, ns / (seconds * 1e9))

    exits = {
        reason: _gain(None if old is None else old.exits.get(reason), count) / seconds
        for reason, count in new.exits.items()
    }
    # A worker that spins while it waits has that as CPU time, too.
    busy = min(gained("running_ns"), gained("cpu_ns"))
    told = new.guest_ns > 0
    guest = min(busy, gained("guest_ns")) if told else busy
    wait = share(gained("waiting_ns"))
    unclaimed = new.unclaimed_reads + new.unclaimed_writes
    return VcpuSample(
        index,
        new.state.name.lower(),
        new.pid,
        sum(exits.values()),
        {reason: rate for reason, rate in exits.items() if rate},
        share(guest),
        share(busy - guest) if told else None,
        wait,
        max(0.0, 1.0 - share(busy) - wait),
        (gained("unclaimed_reads") + gained("unclaimed_writes")) / seconds,
        unclaimed,
        str(new.last_unclaimed or ""),
        new.crossing,
    )


def _device(
    old: DeviceStatistics | None, new: DeviceStatistics, seconds: float, vcpus: int
) -> DeviceSample:
    def rate(name: str) -> float:
        return _gain(None if old is None else getattr(old, name), getattr(new, name)) / seconds

    waits = new.waits.since(_NONE if old is None else old.waits)
    service = new.service.since(_NONE if old is None else old.service)
    reads, writes, posted = rate("reads"), rate("writes"), rate("posted")
    # Not every access of a vCPU of the user's own is timed.
    mean = waits.total_ns / waits.samples if waits.samples else 0.0
    waited = mean * max(0.0, reads + writes - posted) / 1e9
    return DeviceSample(
        new.name,
        new.shard,
        reads + writes,
        reads,
        writes,
        posted,
        waits.percentile_ns(0.5),
        waits.percentile_ns(0.99),
        service.percentile_ns(0.5),
        service.percentile_ns(0.99),
        min(1.0, waited / max(1, vcpus)),
        rate("refused"),
        new.refused,
        str(new.last_refused or ""),
        rate("interrupts"),
        new.interrupts,
        new.interrupts_dropped,
    )


def _shard(old: ShardStatistics | None, new: ShardStatistics, seconds: float) -> ShardSample:
    def rate(name: str) -> float:
        return _gain(None if old is None else getattr(old, name), getattr(new, name)) / seconds

    return ShardSample(
        new.name,
        new.pid,
        rate("cpu_ns") / 1e9,
        rate("served"),
        rate("yields"),
        rate("sleeps"),
        new.recoveries,
        new.lost_wakeups,
        new.malformed,
        new.quarantined,
    )
