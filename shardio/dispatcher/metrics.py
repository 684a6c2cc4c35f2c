"""A machine's statistics as Prometheus metrics: `families` names each of them once, and says what it counts.

Names and units follow Prometheus' conventions: a prefix, base units (seconds), `_total` behind what only
grows. docs/reference/metrics.md is the list for readers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from shardio.dispatcher.statistics import DeviceStatistics, MachineStatistics
from shardio.errors import HostError
from shardio.fabric.statistics import Histogram, bucket_bounds

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

HINT = "pip install 'shardio[metrics]', which brings prometheus-client"
NS = 1e-9
_OCTAVES = range(4, 31)
"""Of a histogram: each octave's four buckets are one here. From 64 ns to 4.3 s, and one for what is longer.
"""
STATES = ("new", "starting", "running", "stopped")

# What a field of the statistics is called, what it counts, and the field; in nanoseconds where the name says
# seconds.
VCPU: Mapping[str, tuple[str, str]] = {
    "running_seconds": ("Time outside of waits, while the vCPU was let run", "running_ns"),
    "waiting_seconds": ("Time in waits for devices", "waiting_ns"),
    "cpu_seconds": ("CPU time of the process that runs the vCPU", "cpu_ns"),
    "guest_seconds": ("What of it was guest code; 0 where the kernel does not tell", "guest_ns"),
    "string_exits": ("Exits by string instructions", "string_exits"),
    "interrupted": ("Entries that a signal broke off", "interrupted"),
    "crossing_accesses": ("Accesses that ran past the end of a device's range", "crossing"),
    "worker_starts": ("Processes that have run the vCPU", "spawns"),
    "lost_wakeups": ("Replies that were found late", "lost_wakeups"),
    "malformed": ("Replies that made no sense", "malformed"),
}
DEVICE: Mapping[str, tuple[str, str]] = {
    "posted_writes": ("Writes for which no vCPU waits; they are among the accesses", "posted"),
    "refused_accesses": ("Accesses that nobody answered: all-ones, or dropped", "refused"),
    "string_accesses": ("Accesses by string instructions; each counts once", "strings"),
    "interrupts": ("Interrupts that the device had the hypervisor raise", "interrupts"),
    "interrupts_dropped": (
        "Triggers that raised none of their own: disabled, or one was held back already",
        "interrupts_dropped",
    ),
}
SHARD: Mapping[str, tuple[str, str]] = {
    "served": ("Requests and posted writes taken", "served"),
    "yields": ("Polls that found nothing, after which the CPU was given to others", "yields"),
    "sleeps": ("How often the shard went to sleep", "sleeps"),
    "lost_wakeups": ("Requests that were found late", "lost_wakeups"),
    "malformed": ("Requests that made no sense", "malformed"),
    "cpu_seconds": ("CPU time of the shard's process", "cpu_ns"),
    "starts": ("Processes that have been this shard", "spawns"),
    "recoveries": ("Successors that have taken over", "recoveries"),
}


def check() -> None:
    """Raises `HostError` without prometheus_client."""
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        raise HostError("metrics need prometheus_client, which is not installed", HINT) from None


def families(state: str, version: str, found: MachineStatistics) -> Iterator[Metric]:
    """Every metric, whether it has samples or not."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    info = InfoMetricFamily("shardio", "The release of shardio")
    info.add_metric((), {"version": version})
    yield info
    states = GaugeMetricFamily("shardio_machine_state", "1 for the state it is in", labels=("state",))
    for each in STATES:
        states.add_metric((each,), each == state)
    yield states

    rows: list[tuple[tuple[str, ...], Any]] = [((str(n),), each) for n, each in enumerate(found.vcpus)]
    exits = CounterMetricFamily("shardio_vcpu_exits", "Exits, by KVM's reason", labels=("vcpu", "reason"))
    unclaimed = CounterMetricFamily(
        "shardio_vcpu_unclaimed_accesses", "Accesses that nobody claimed", labels=("vcpu", "direction")
    )
    repairs = CounterMetricFamily(
        "shardio_vcpu_repairs", "Instructions executed in place of KVM's emulator",
        labels=("vcpu", "instruction"),
    )  # fmt: skip
    now = GaugeMetricFamily("shardio_vcpu_state", "1: the vCPU's state", labels=("vcpu", "state"))
    for labels, vcpu in rows:
        for reason, count in vcpu.exits.items():
            exits.add_metric((*labels, reason), count)
        for instruction, count in vcpu.repairs.items():
            repairs.add_metric((*labels, instruction), count)
        unclaimed.add_metric((*labels, "read"), vcpu.unclaimed_reads)
        unclaimed.add_metric((*labels, "write"), vcpu.unclaimed_writes)
        now.add_metric((*labels, vcpu.state.name.lower()), 1)
    yield from (exits, unclaimed, repairs, now)
    yield from _counters("vcpu", ("vcpu",), VCPU, rows)
    yield from _devices(found.devices)

    rows = [((each.name,), each) for each in found.shards]
    yield from _counters("shard", ("shard",), SHARD, rows)
    up = GaugeMetricFamily("shardio_shard_up", "1: it has a process", labels=("shard",))
    given_up = GaugeMetricFamily("shardio_shard_quarantined", "1: it gets none any more", labels=("shard",))
    for labels, shard in rows:
        up.add_metric(labels, shard.pid != 0)
        given_up.add_metric(labels, shard.quarantined)
    yield from (up, given_up)


def _devices(found: tuple[DeviceStatistics, ...]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    names = ("device", "shard")
    rows: list[tuple[tuple[str, ...], Any]] = [((each.name, each.shard), each) for each in found]
    accesses = CounterMetricFamily(
        "shardio_device_accesses", "Accesses of guests, posted writes among them",
        labels=(*names, "direction"),
    )  # fmt: skip
    waits = HistogramMetricFamily(
        "shardio_device_wait_seconds", "How long vCPUs waited, for the accesses that were timed", labels=names
    )
    service = HistogramMetricFamily(
        "shardio_device_service_seconds", "How long handlers ran, for the accesses that were timed",
        labels=names,
    )  # fmt: skip
    for labels, device in rows:
        accesses.add_metric((*labels, "read"), device.reads)
        accesses.add_metric((*labels, "write"), device.writes)
        waits.add_metric(labels, buckets(device.waits), device.waits.total_ns * NS)
        service.add_metric(labels, buckets(device.service), device.service.total_ns * NS)
    yield from (accesses, waits, service)
    yield from _counters("device", names, DEVICE, rows)


def buckets(found: Histogram) -> list[tuple[str, float]]:
    """A histogram's octaves as Prometheus wants them: upper bounds in seconds, and all that is below each.

    >>> buckets(Histogram(3, 250, (0,) * 23 + (1, 2)))[:3]
    [('6.4e-08', 0), ('1.28e-07', 1), ('2.56e-07', 3)]
    """
    told = [
        (repr(round(bucket_bounds(4 * octave + 3)[1] * NS, 12)), sum(found.buckets[: 4 * octave + 4]))
        for octave in _OCTAVES
    ]
    return [*told, ("+Inf", sum(found.buckets))]


def _counters(
    kind: str,
    names: tuple[str, ...],
    fields: Mapping[str, tuple[str, str]],
    rows: list[tuple[tuple[str, ...], Any]],
) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    for name, (text, field) in fields.items():
        family = CounterMetricFamily(f"shardio_{kind}_{name}", text, labels=names)
        scale = NS if field.endswith("_ns") else 1
        for labels, row in rows:
            family.add_metric(labels, getattr(row, field) * scale)
        yield family
