"""Looks at a machine, made by hand."""

from __future__ import annotations

from typing import Any

from shardio._core import lib
from shardio.address import Space
from shardio.control.messages import Status
from shardio.dispatcher.statistics import DeviceStatistics, ExitInfo, MachineStatistics, ShardStatistics
from shardio.fabric.statistics import Histogram, LastAccess
from shardio.vcpu import VcpuState, VcpuStatistics
from shardio.vcpu.interface import ExitCounts

S = 1_000_000_000
LAST = LastAccess(Space.PIO, 0x80, 1, False, 7)


def times(**buckets: int) -> Histogram:
    """So many samples of about so many nanoseconds: `times(ns1000=3)`."""
    counts = [0] * lib.SIO_HIST_BUCKETS
    total = 0
    for name, count in buckets.items():
        ns = int(name.removeprefix("ns"))
        counts[lib.sio_hist_bucket(ns)] += count
        total += ns * count
    return Histogram(sum(counts), total, tuple(counts))


def vcpu(exits: dict[str, int] | None = None, **given: Any) -> VcpuStatistics:
    fields: dict[str, Any] = dict.fromkeys(
        ("string_exits", "interrupted", "running_ns", "waiting_ns", "unclaimed_reads", "unclaimed_writes",
         "crossing", "lost_wakeups", "malformed", "cpu_ns", "guest_ns"), 0,
    )  # fmt: skip
    fields |= {"state": VcpuState.RUNNING, "spawns": 1, "pid": 20, "repairs": ExitCounts({})}
    fields |= {"last_unclaimed": None, "last_crossing": None}
    return VcpuStatistics(exits=ExitCounts(exits or {}), **fields | given)


def device(name: str, **given: Any) -> DeviceStatistics:
    counts = ("reads", "writes", "posted", "refused", "strings", "wait_ns", "wait_p50_ns", "wait_p99_ns")
    more = ("wait_p999_ns", "service_ns", "service_p50_ns", "service_p99_ns")
    fields = {"name": name, "shard": "shard0", **dict.fromkeys((*counts, *more), 0)}
    return DeviceStatistics(**{**fields, **given})


def shard(name: str, **given: Any) -> ShardStatistics:
    counts = dict.fromkeys(("served", "sleeps", "yields", "lost_wakeups", "malformed", "cpu_ns"), 0)
    return ShardStatistics(**{"name": name, "pid": 30, "spawns": 1, "quarantined": False, **counts, **given})


def status(
    seconds: float,
    vcpus: tuple[VcpuStatistics, ...] = (),
    devices: tuple[DeviceStatistics, ...] = (),
    shards: tuple[ShardStatistics, ...] = (),
    ended: ExitInfo | None = None,
    state: str = "running",
) -> Status:
    """A look at a time in seconds."""
    return Status("lamp", 17, state, int(seconds * S), ended, MachineStatistics(vcpus, devices, shards))
