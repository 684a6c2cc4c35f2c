"""Counters and latency histograms, as frozen values. Reading them never disturbs their writers.

Histograms are log-scale: exact below 4 ns, then four buckets to an octave, so a percentile is good to about
12 %.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self, TypeVar

import msgspec

from shardio._core import lib
from shardio.address import Space

S = TypeVar("S", bound=msgspec.Struct)


def copied(kind: type[S], source: Any, **given: Any) -> S:
    """A `kind` whose fields are the attributes of the same names of `source`, but for those `given`.

    >>> copied(ShardCounters, AccessStatistics(), served=5, sleeps=0, yields=0, lost_wakeups=0, malformed=1)
    ShardCounters(served=5, sleeps=0, yields=0, lost_wakeups=0, malformed=1)
    """
    rest = {name: getattr(source, name) for name in kind.__struct_fields__ if name not in given}
    return kind(**rest, **given)


def bucket_bounds(bucket: int) -> tuple[float, float]:
    """The nanoseconds [low, high) that fall into a histogram bucket."""
    if bucket < 4:
        return float(bucket), float(bucket + 1)
    octave, quarter = divmod(bucket, 4)
    low = float((4 + quarter) << (octave - 1))
    return low, low + float(1 << (octave - 1))


def percentile(histogram: Iterable[int], share: float) -> float:
    """The latency, in nanoseconds, that `share` (0 to 1) of the samples do not exceed; 0.0 without samples.

    Samples are taken to be spread evenly over their bucket.
    """
    counts = list(histogram)
    wanted = sum(counts) * share
    seen = 0
    for bucket, count in enumerate(counts):
        if count and seen + count >= wanted:
            low, high = bucket_bounds(bucket)
            return low + (high - low) * (wanted - seen) / count
        seen += count
    return 0.0


def describe_access(space: Space, address: int, size: int, *, write: bool, count: int = 1) -> str:
    """An access in words; `count`: the elements of a string.

    >>> describe_access(Space.MMIO, 0xD000_0004, 2, write=True)
    'write of 2 bytes at mmio 0xd0000004'
    >>> describe_access(Space.PIO, 0x3F8, 1, write=False, count=16)
    'read of 16 times 1 byte at pio 0x3f8'
    """
    times = f"{count} times " if count != 1 else ""
    width = f"{size} byte{'s' if size != 1 else ''}"
    return f"{'write' if write else 'read'} of {times}{width} at {space} {address:#x}"


class LastAccess(msgspec.Struct, frozen=True):
    """The last access of a kind: where, how wide (bytes), in which direction; `ticks` orders those of
    several writers.
    """

    space: Space
    address: int
    size: int
    write: bool
    ticks: int

    @classmethod
    def read(cls, last: Any) -> Self | None:
        """A copy of a `struct sio_last_access`; None where there was none."""
        if not last.ticks:
            return None
        space = Space.MMIO if last.space == lib.SIO_MMIO else Space.PIO
        return copied(cls, last, space=space, write=bool(last.write))

    def __str__(self) -> str:
        return describe_access(self.space, self.address, self.size, write=self.write)


def newest(one: LastAccess | None, other: LastAccess | None) -> LastAccess | None:
    """Whichever access was later; None is earlier than any."""
    return max((one, other), key=lambda last: last.ticks if last is not None else 0)


class Histogram(msgspec.Struct, frozen=True):
    """How long timed accesses took: `samples` of them, `total_ns` nanoseconds together, and how many fell
    into each bucket (`bucket_bounds`). A bucket's count is that of 32 bits for each writer: it wraps.

    >>> Histogram(3, 12, (0, 0, 2, 0, 0, 0, 0, 1)).percentile_ns(0.5)
    2.75
    """

    samples: int = 0
    total_ns: int = 0
    buckets: tuple[int, ...] = ()

    def percentile_ns(self, share: float) -> float:
        """For instance `percentile_ns(0.99)`; 0.0 without samples."""
        return percentile(self.buckets, share)

    def since(self, earlier: Histogram) -> Histogram:
        """What has been added since an `earlier` look at the same histogram; all, where it began anew."""
        if self.samples < earlier.samples or self.total_ns < earlier.total_ns:
            return self
        before = earlier.buckets or (0,) * len(self.buckets)
        buckets = tuple((a - b) % (1 << 32) for a, b in zip(self.buckets, before, strict=True))
        return Histogram(self.samples - earlier.samples, self.total_ns - earlier.total_ns, buckets)

    def __repr__(self) -> str:
        p50, p99 = self.percentile_ns(0.5), self.percentile_ns(0.99)
        return f"<Histogram of {self.samples}: p50 {p50:.0f} ns, p99 {p99:.0f} ns>"


class AccessStatistics(msgspec.Struct, frozen=True):
    """Accesses of one range: from a vCPU's side the times are waits, from a shard's side service, in
    nanoseconds.

    Reads, writes, posted writes and strings are counted by shards alone. `samples` of the accesses were
    timed: every one of a KVM worker's; the first 64 and then one in 64 of a bare client's; one in 64 posted
    or coalesced writes. `last_refused`: the last of the `refused` ones.
    `interrupts`, `interrupts_dropped`: of a device, at its first range (`shardio.interrupt.counts`).
    """

    reads: int = 0
    writes: int = 0
    posted: int = 0
    refused: int = 0
    strings: int = 0
    samples: int = 0
    total_ns: int = 0
    histogram: tuple[int, ...] = (0,) * lib.SIO_HIST_BUCKETS
    last_refused: LastAccess | None = None
    interrupts: int = 0
    interrupts_dropped: int = 0

    @classmethod
    def read(cls, stat: Any, hist: Any, interrupts: Any = None) -> Self:
        """A copy of a shard's `struct sio_stat *` and `struct sio_interrupts *` (a vCPU has none) and a
        `struct sio_hist *`, None where nothing was written there.
        """
        names = ("reads", "writes", "posted", "interrupts", "interrupts_dropped")
        counts: dict[str, Any] = dict.fromkeys(names, 0)
        if stat is not None:
            counts |= {name: getattr(stat, name) for name in ("reads", "writes", "posted", "refused")}
        if interrupts is not None:
            counts |= {"interrupts": interrupts.raised, "interrupts_dropped": interrupts.dropped}
        if hist is None:
            return cls(**counts)
        last = LastAccess.read(hist.last_refused)
        return copied(cls, hist, histogram=tuple(hist.bucket), last_refused=last, **counts)

    def __add__(self, other: AccessStatistics) -> AccessStatistics:
        return AccessStatistics(
            self.reads + other.reads,
            self.writes + other.writes,
            self.posted + other.posted,
            self.refused + other.refused,
            self.strings + other.strings,
            self.samples + other.samples,
            self.total_ns + other.total_ns,
            tuple(a + b for a, b in zip(self.histogram, other.histogram, strict=True)),
            newest(self.last_refused, other.last_refused),
            self.interrupts + other.interrupts,
            self.interrupts_dropped + other.interrupts_dropped,
        )

    def percentile_ns(self, share: float) -> float:
        """For instance `percentile_ns(0.99)`."""
        return percentile(self.histogram, share)

    @property
    def times(self) -> Histogram:
        """How long the timed ones took."""
        return Histogram(self.samples, self.total_ns, self.histogram)

    @property
    def accesses(self) -> int:
        """Reads, synchronous writes and posted writes; a string counts once."""
        return self.reads + self.writes + self.posted


class VcpuCounters(msgspec.Struct, frozen=True):
    """A vCPU's counters that belong to no range. `last_unclaimed`, `last_crossing`: the last access that
    nobody claimed, and that ran past its range's end.
    """

    unclaimed_reads: int
    unclaimed_writes: int
    crossing: int
    last_unclaimed: LastAccess | None
    last_crossing: LastAccess | None
    sleeps: int
    yields: int
    lost_wakeups: int
    doorbells: int
    malformed: int

    @classmethod
    def read(cls, control: Any) -> Self:
        """A copy of a `struct sio_vcpu_control`."""
        last = {
            "last_unclaimed": LastAccess.read(control.unclaimed),
            "last_crossing": LastAccess.read(control.crossed),
        }
        return copied(cls, control, **last)


class ShardCounters(msgspec.Struct, frozen=True):
    """A shard's counters that belong to no range."""

    served: int
    sleeps: int
    yields: int
    lost_wakeups: int
    malformed: int

    @classmethod
    def read(cls, control: Any, served: int) -> Self:
        """A copy of a `struct sio_shard_control`; `served`: requests and posted writes taken."""
        return copied(cls, control, served=served)
