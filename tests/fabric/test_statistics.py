"""Counters and histograms, in both directions: what each side counts; percentiles agree with C."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio import MmioRange, PioRange
from shardio._core import lib
from shardio.fabric import AccessStatistics
from shardio.fabric.statistics import Histogram, bucket_bounds, percentile
from tests.fabric.support import BASE, MMIO, PIO, PORT, Log, bench

LAST = lib.SIO_HIST_BUCKETS - 1


@given(st.integers(0, 2**63))
def test_a_time_falls_into_the_bucket_whose_bounds_hold_it(ns: int) -> None:
    bucket = lib.sio_hist_bucket(ns)

    low, high = bucket_bounds(bucket)

    assert low <= ns
    assert ns < high or bucket == LAST


def test_buckets_follow_each_other_without_a_gap() -> None:
    assert [bucket_bounds(n)[1] for n in range(LAST)] == [bucket_bounds(n)[0] for n in range(1, LAST + 1)]


@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=60), st.floats(0.01, 1.0))
def test_a_percentile_lies_in_the_bucket_of_the_sample_of_that_rank(samples: list[int], share: float) -> None:
    histogram = [0] * lib.SIO_HIST_BUCKETS
    for ns in samples:
        histogram[lib.sio_hist_bucket(ns)] += 1

    found = percentile(histogram, share)

    rank = next(n for n in range(1, len(samples) + 1) if n >= len(samples) * share)
    low, high = bucket_bounds(lib.sio_hist_bucket(sorted(samples)[rank - 1]))
    assert low <= found <= high


def test_no_samples_have_no_percentile() -> None:
    assert AccessStatistics().percentile_ns(0.99) == 0.0


def test_what_a_histogram_has_gained_since() -> None:
    before, now = Histogram(2, 10, (0, 2, 0)), Histogram(5, 40, (0, 3, 2))

    assert now.since(before) == Histogram(3, 30, (0, 1, 2))
    assert now.since(Histogram()) == now


def test_a_bucket_that_has_wrapped_has_gained_all_the_same() -> None:
    before, now = Histogram(2**33, 10, (2**32 - 1, 5)), Histogram(2**33 + 3, 40, (2, 5))

    assert now.since(before) == Histogram(3, 30, (3, 0))


def test_a_histogram_that_began_anew_is_taken_whole() -> None:
    assert Histogram(1, 4, (1,)).since(Histogram(9, 90, (9,))) == Histogram(1, 4, (1,))


@given(st.integers(0, 2**40), st.integers(0, 10**9))
def test_ticks_and_nanoseconds_are_inverse(ticks: int, ns: int) -> None:
    with bench() as b:
        view = b.fabric.view

        assert abs(lib.sio_ns_to_ticks(view, lib.sio_ticks_to_ns(view, ticks)) - ticks) <= 8
        assert abs(lib.sio_ticks_to_ns(view, lib.sio_ns_to_ticks(view, ns)) - ns) <= 8


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_read_counts_as_a_read_and_is_timed_on_both_sides(size: int) -> None:
    with bench() as b:
        owner, route, client = b.connect(Log())

        with b.serving(owner):
            client.read(MMIO, BASE, size)

        seen, waits = b.fabric.service(0, route.index), b.fabric.waits(0, route.index)
        assert (seen.reads, seen.writes, seen.posted, seen.refused, seen.strings) == (1, 0, 0, 0, 0)
        assert (seen.samples, sum(seen.histogram), seen.accesses) == (1, 1, 1)
        assert (waits.samples, sum(waits.histogram), waits.refused) == (1, 1, 0)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_write_counts_as_a_write_and_is_timed_on_both_sides(size: int) -> None:
    with bench() as b:
        owner, route, client = b.connect(Log())

        with b.serving(owner):
            client.write(MMIO, BASE, size, 0)

        seen, waits = b.fabric.service(0, route.index), b.fabric.waits(0, route.index)
        assert (seen.reads, seen.writes, seen.posted, seen.refused, seen.strings) == (0, 1, 0, 0, 0)
        assert (seen.samples, sum(seen.histogram), seen.accesses) == (1, 1, 1)
        assert (waits.samples, sum(waits.histogram), waits.refused) == (1, 1, 0)


def test_a_posted_write_counts_as_posted() -> None:
    with bench() as b:
        owner, route, client = b.connect(Log(), posted=True)

        for value in range(5):
            client.write(MMIO, BASE, 4, value)
        owner.scan()

        seen = b.fabric.service(0, route.index) + b.fabric.waits(0, route.index)
        assert (seen.reads, seen.writes, seen.posted, seen.refused) == (0, 0, 5, 0)


def test_a_read_string_counts_once() -> None:
    with bench() as b:
        owner, route, client = b.connect(Log(), PioRange(PORT, 4))

        with b.serving(owner):
            client.read_string(PIO, PORT, 2, 50)

        seen = b.fabric.service(0, route.index)
        assert (seen.reads, seen.writes, seen.strings, seen.accesses) == (1, 0, 1, 1)


def test_a_written_string_counts_once() -> None:
    with bench() as b:
        owner, route, client = b.connect(Log(), PioRange(PORT, 4))

        with b.serving(owner):
            client.write_string(PIO, PORT, 2, bytes(100))

        seen = b.fabric.service(0, route.index)
        assert (seen.reads, seen.writes, seen.strings, seen.accesses) == (0, 1, 1, 1)


def test_counters_of_vcpus_and_ranges_are_apart() -> None:
    with bench(vcpus=2) as b:
        owner = b.owner()
        first = b.add(owner, Log()).index
        second = b.add(owner, Log(), MmioRange(0x9000, 8)).index
        clients = b.client(0), b.client(1)

        with b.serving(owner):
            clients[0].read(MMIO, BASE, 1)
            clients[1].write(MMIO, 0x9000, 1, 0)

        waits = [[b.fabric.waits(vcpu, index).samples for index in (first, second)] for vcpu in range(2)]
        service = [b.fabric.service(0, index) for index in (first, second)]
        assert waits == [[1, 0], [0, 1]]
        assert [(each.reads, each.writes) for each in service] == [(1, 0), (0, 1)]


def test_one_access_in_sixteen_is_timed_after_the_first_ones() -> None:
    with bench() as b:
        owner = b.owner()
        index = b.add(owner, Log()).index
        client = b.client(sample_every=16)

        with b.serving(owner):
            for _ in range(64 + 160):
                client.read(MMIO, BASE, 1)

        assert b.fabric.service(0, index).reads == 224
        assert 64 + 9 <= b.fabric.waits(0, index).samples <= 64 + 11


def test_sums_add_every_part() -> None:
    one = AccessStatistics(1, 2, 3, 4, 5, 6, 7, tuple(range(lib.SIO_HIST_BUCKETS)))

    both = one + one

    assert both == AccessStatistics(2, 4, 6, 8, 10, 12, 14, tuple(2 * n for n in range(lib.SIO_HIST_BUCKETS)))


def test_a_sleep_is_counted_and_no_wake_up_is_lost() -> None:
    with bench() as b:
        owner, _, client = b.connect(Log())

        asleep = [owner.turn(0) for _ in range(50)]
        with b.serving(owner):
            client.read(MMIO, BASE, 1)

        counters = b.fabric.shard_counters(0)
        assert counters.sleeps >= 1, asleep
        assert (counters.lost_wakeups, b.fabric.vcpu_counters(0).lost_wakeups) == (0, 0)


def test_accesses_are_reads_and_writes_of_both_ways() -> None:
    one = AccessStatistics(reads=1, writes=2, posted=4, refused=8, strings=16)

    assert one.accesses == 7
    assert (one + one).strings == 32
