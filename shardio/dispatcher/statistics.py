"""Frozen values: how a machine ended, and what its dispatcher has done so far. Times are in nanoseconds."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from typing import Self

import msgspec

from shardio.fabric import AccessStatistics, Fabric, LastAccess, ShardCounters
from shardio.fabric.statistics import Histogram, copied, newest
from shardio.processes import cpu_time_ns
from shardio.supervisor import ShardProcess
from shardio.vcpu import VcpuStatistics
from shardio.vcpu.report import VcpuReport


class ExitInfo(msgspec.Struct, frozen=True):
    """How a machine ended.

    `reason`: "exit" (a device asked; `status` is its exit status), "reset" (a device asked), "halted" (every
    vCPU, without an in-kernel irqchip), "shutdown" (triple fault), "system event", "failed" (an exit that
    cannot be served: `detail` has its name and the registers), "stopped" (`stop`), "error" (a process could
    not be started). `vcpu`: whose exit it was.
    """

    reason: str
    status: int | None = None
    vcpu: int | None = None
    detail: str = ""
    quarantined: tuple[str, ...] = ()
    """Devices that nobody answered for any more, because their owners died of it."""
    report: VcpuReport | None = None
    """Where that vCPU is, if the machine ended badly: by "shutdown" or "failed"."""


class DeviceStatistics(msgspec.Struct, frozen=True):
    """One device: its accesses over all vCPUs, how long vCPUs waited for it, and how long its handlers ran.

    `writes` includes the posted ones, for which no vCPU waits; `refused` ones gave all-ones or were dropped,
    and `last_refused` is the last of them. A string access counts once. `interrupts`: how often its owner had
    the hypervisor raise one; `interrupts_dropped`: triggers that raised none of their own, because the
    interrupt was disabled, or a mask held one back already. `waits`, `service`: the times in full, for
    percentiles of a while.
    """

    name: str
    shard: str
    reads: int
    writes: int
    posted: int
    refused: int
    strings: int
    wait_ns: int
    wait_p50_ns: float
    wait_p99_ns: float
    wait_p999_ns: float
    service_ns: int
    service_p50_ns: float
    service_p99_ns: float
    last_refused: LastAccess | None = None
    interrupts: int = 0
    interrupts_dropped: int = 0
    waits: Histogram = Histogram()
    service: Histogram = Histogram()


class ShardStatistics(msgspec.Struct, frozen=True):
    """One shard: its process and the CPU time that this has had (0 where it is gone), how often it was
    started, and what its drain loop did: requests and posted writes `served`, `sleeps`, and `yields` after
    polls that had found nothing.
    """

    name: str
    pid: int
    spawns: int
    served: int
    sleeps: int
    yields: int
    lost_wakeups: int
    malformed: int
    quarantined: bool
    cpu_ns: int = 0

    @property
    def recoveries(self) -> int:
        """How often a successor has taken over."""
        return max(0, self.spawns - 1)

    @classmethod
    def read(cls, name: str, shard: ShardProcess, counters: ShardCounters) -> Self:
        """Of a shard's process and its counters in the fabric."""
        pid = shard.pid
        process = {"pid": pid, "spawns": shard.spawns, "quarantined": shard.quarantined}
        return copied(cls, counters, name=name, cpu_ns=cpu_time_ns(pid), **process)


class MachineStatistics(msgspec.Struct, frozen=True):
    """All of a dispatcher, at one time."""

    vcpus: tuple[VcpuStatistics, ...]
    devices: tuple[DeviceStatistics, ...]
    shards: tuple[ShardStatistics, ...]


def device_statistics(
    fabric: Fabric, name: str, shards: Iterable[tuple[int, str]], indices: Iterable[int]
) -> DeviceStatistics:
    """Sum what every vCPU and every shard counted for a device's ranges."""
    indices, shards = tuple(indices), tuple(shards)
    nothing = AccessStatistics()
    seen = (fabric.waits(vcpu, index) for vcpu in range(fabric.vcpus) for index in indices)
    waits = functools.reduce(operator.add, (each for each in seen if each != nothing), nothing)
    service = functools.reduce(
        operator.add, (fabric.service(shard, index) for shard, _ in shards for index in indices), nothing
    )
    return copied(
        DeviceStatistics,
        service,
        name=name,
        shard="+".join(label for _, label in shards),
        writes=service.writes + service.posted,
        refused=max(waits.refused, service.refused),
        last_refused=newest(waits.last_refused, service.last_refused),
        interrupts=service.interrupts,
        interrupts_dropped=service.interrupts_dropped,
        waits=waits.times,
        service=service.times,
        wait_ns=waits.total_ns,
        wait_p50_ns=waits.percentile_ns(0.5),
        wait_p99_ns=waits.percentile_ns(0.99),
        wait_p999_ns=waits.percentile_ns(0.999),
        service_ns=service.total_ns,
        service_p50_ns=service.percentile_ns(0.5),
        service_p99_ns=service.percentile_ns(0.99),
    )
