"""What a machine did between two looks: rates, shares, percentiles of the while."""

from __future__ import annotations

import json

import pytest

from shardio.cli.top.sample import SCHEMA, sample, times
from shardio.control.messages import json as as_json
from shardio.dispatcher.statistics import ExitInfo
from tests.cli.top.looks import LAST, S, device, shard, status, vcpu
from tests.cli.top.looks import times as of

MS = S // 1000


def test_rates_are_for_each_second() -> None:
    before = status(1, (vcpu({"IO": 10}),), (device("a", reads=5, writes=1),), (shard("s", served=3),))
    device_now, shard_now = device("a", reads=9, writes=7), shard("s", served=9)
    now = status(3, (vcpu({"IO": 30, "MMIO": 4}),), (device_now,), (shard_now,))

    found = sample(before, now)

    assert found.seconds == 2.0
    assert (found.vcpus[0].exits, found.vcpus[0].exits_per_s) == ({"IO": 10.0, "MMIO": 2.0}, 12.0)
    one = found.devices[0]
    assert (one.reads_per_s, one.writes_per_s, one.accesses_per_s) == (2.0, 3.0, 5.0)
    assert found.shards[0].served_per_s == 3.0


def test_posted_writes_and_interrupts_have_rates_and_totals() -> None:
    before = status(0, devices=(device("a", writes=2, posted=2, interrupts=3, refused=1),))
    gained = device("a", writes=8, posted=6, interrupts=5, interrupts_dropped=2, refused=4, last_refused=LAST)

    (found,) = sample(before, status(1, devices=(gained,))).devices

    assert (found.writes_per_s, found.posted_per_s) == (6.0, 4.0)
    assert (found.interrupts_per_s, found.interrupts, found.interrupts_dropped) == (2.0, 5, 2)
    assert (found.refused_per_s, found.refused, found.last_refused) == (3.0, 4, str(LAST))


def test_percentiles_are_those_of_the_while() -> None:
    slow, fast = of(ns1000000=100), of(ns1000000=100, ns1000=50)
    before = status(0, (vcpu(),), (device("a", reads=100, waits=slow, service=slow),))
    now = status(1, (vcpu(),), (device("a", reads=150, waits=fast, service=fast),))

    (found,) = sample(before, now).devices

    assert found.wait_p99_ns == pytest.approx(1000, rel=0.2)
    assert found.service_p50_ns == pytest.approx(1000, rel=0.2)
    assert times(before, now, "a")[0].samples == 50


def test_the_share_of_time_is_of_all_vcpus_and_untimed_accesses_count() -> None:
    before = status(0, (vcpu(), vcpu()), (device("a"),))
    now = status(1, (vcpu(), vcpu()), (device("a", reads=200, waits=of(ns1000000=100)),))

    assert sample(before, now).devices[0].wait_share == pytest.approx(0.1)


def test_guest_exit_wait_and_idle_where_the_kernel_tells() -> None:
    now = vcpu(running_ns=700 * MS, waiting_ns=300 * MS, cpu_ns=600 * MS, guest_ns=450 * MS)

    (found,) = sample(status(0, (vcpu(),)), status(1, (now,))).vcpus

    shares = (found.guest, found.exit, found.wait, found.idle)
    assert shares == (pytest.approx(0.45), pytest.approx(0.15), pytest.approx(0.3), pytest.approx(0.1))


def test_where_the_kernel_does_not_tell_the_guest_has_its_exits() -> None:
    now = vcpu(running_ns=700 * MS, waiting_ns=300 * MS, cpu_ns=900 * MS)

    (found,) = sample(status(0, (vcpu(),)), status(1, (now,))).vcpus

    assert (found.guest, found.exit, found.wait) == (pytest.approx(0.7), None, pytest.approx(0.3))
    assert found.idle == pytest.approx(0.0)


def test_a_shard_and_its_successors() -> None:
    before = status(0, shards=(shard("s", cpu_ns=5 * S, yields=10, sleeps=4),))
    now = status(2, shards=(shard("s", cpu_ns=6 * S, yields=30, sleeps=6, spawns=3),))

    (found,) = sample(before, now).shards

    assert (found.cpu, found.yields_per_s, found.sleeps_per_s, found.recoveries) == (0.5, 10.0, 1.0, 2)


def test_counters_that_began_anew_are_taken_whole() -> None:
    """A successor's CPU time, and a device that was removed and added."""
    before = status(0, devices=(device("a", reads=100),), shards=(shard("s", cpu_ns=9 * S),))
    now = status(1, devices=(device("a", reads=3),), shards=(shard("s", cpu_ns=S // 2),))

    found = sample(before, now)

    assert (found.devices[0].reads_per_s, found.shards[0].cpu) == (3.0, 0.5)


def test_what_was_not_there_before_began_at_nothing() -> None:
    found = sample(status(0), status(1, (vcpu({"IO": 2}),), (device("a", reads=4),), (shard("s", served=1),)))

    assert (found.vcpus[0].exits_per_s, found.devices[0].reads_per_s) == (2.0, 4.0)
    assert found.shards[0].served_per_s == 1.0


def test_unclaimed_accesses_of_both_directions() -> None:
    before = vcpu(unclaimed_reads=1, unclaimed_writes=2)
    now = vcpu(unclaimed_reads=4, unclaimed_writes=6, crossing=3, last_unclaimed=LAST)

    (found,) = sample(status(0, (before,)), status(1, (now,))).vcpus

    assert (found.unclaimed_per_s, found.unclaimed, found.crossing) == (7.0, 10, 3)
    assert found.last_unclaimed == "read of 1 byte at pio 0x80"


def test_its_json_has_the_documented_fields() -> None:
    now = status(1, (vcpu(),), (device("a"),), (shard("s"),), ended=ExitInfo("reset"), state="stopped")

    found = json.loads(as_json(sample(status(0), now)))

    assert found["schema"] == SCHEMA == 1
    assert (found["name"], found["pid"], found["state"], found["ended"]) == ("lamp", 17, "stopped", "reset")
    assert set(found) == {
        "schema", "name", "pid", "state", "ended", "seconds", "vcpus", "devices", "shards",
    }  # fmt: skip
    assert {"exits_per_s", "exits", "guest", "exit", "wait", "idle"} <= set(found["vcpus"][0])
    assert {"wait_p50_ns", "service_p99_ns", "wait_share", "interrupts"} <= set(found["devices"][0])
    assert {"cpu", "served_per_s", "yields_per_s", "sleeps_per_s", "recoveries"} <= set(found["shards"][0])
