"""The closed form against what must hold of any such machine, and against measured points."""

from __future__ import annotations

import pytest

from shardio.bench.bound import Costs, check, summary
from shardio.bench.errors import BenchError
from shardio.bench.results import Figure, Percentiles, Point, Run, Unit
from tests.bench.test_results import HOST

COSTS = Costs(trip=200.0, service=150.0)
LONG = Costs(trip=10_200.0, service=10_150.0)


def point(vcpus: int, shards: int, handler_ns: int, rate: float, devices: int = 100) -> Point:
    shared = vcpus + shards > HOST.usable_cpus
    return Point(devices, vcpus, shards, handler_ns, rate, 0.0, Percentiles(1, 2, 3), oversubscribed=shared)


# docs/performance.md, handlers that compute 10 us, 100 devices: medians of four runs of nine rounds, 2 CPUs.
MEASURED = Run(
    host=HOST,
    rows=[
        Figure("native", "", Unit.FLOOR, 1.1, [1.1], floor=Percentiles(60, 100, 260)),
        Figure("one-cpu", "", Unit.MICROSECONDS, 3.28, [3.28], operation=3280.0),
    ],
    scaling=[
        point(1, 1, 10_000, 102_000), point(1, 2, 10_000, 118_000),
        point(2, 1, 10_000, 108_000), point(2, 2, 10_000, 165_000),
    ],
)  # fmt: skip


def test_measured_points_are_met_within_a_quarter() -> None:
    checks = check(MEASURED)

    assert [(each.point.vcpus, each.point.shards) for each in checks] == [(2, 1), (2, 2)]
    assert all(each.bound.valid for each in checks)
    assert max(abs(each.error) for each in checks) <= 0.25


@pytest.mark.parametrize(
    ("vcpus", "shards", "cpus", "limit"),
    [(1, 1, None, "vCPUs"), (4, 1, None, "shards"), (4, 4, None, "vCPUs"), (4, 4, 2, "CPUs")],
)
def test_what_there_is_too_little_of_limits(vcpus: int, shards: int, cpus: int | None, limit: str) -> None:
    assert COSTS.bound(vcpus, shards, cpus).limit == limit


def test_one_vcpu_takes_a_round_trip() -> None:
    assert COSTS.bound(1, 1).rate == pytest.approx(5e6)


def test_a_guest_that_does_something_else_asks_less_often() -> None:
    slow = COSTS._replace(exit=7_800.0)

    assert slow.bound(2, 1).rate == pytest.approx(250_000)


def test_one_shard_never_serves_more_than_its_service_time_allows() -> None:
    assert LONG.bound(64, 1).rate == pytest.approx(1e9 / 10_150)


@pytest.mark.parametrize(("costs", "valid"), [(COSTS, False), (LONG, True)])
def test_short_handlers_on_too_few_cpus_are_outside_of_its_validity(costs: Costs, valid: bool) -> None:
    assert costs.bound(2, 2, 2).valid is valid
    assert costs.bound(2, 2, 4).valid


def test_costs_come_from_the_points_without_a_queue() -> None:
    costs = Costs.measured(MEASURED, 10_000)

    assert costs.trip == pytest.approx((1e9 / 102_000 + 1e9 / 118_000) / 2)
    assert costs.trip - costs.service == 60.0


def test_costs_need_such_a_point() -> None:
    with pytest.raises(BenchError, match="1 vCPU x 1 shard"):
        Costs.measured(Run(host=HOST, scaling=[point(2, 2, 0, 1e6)]), 0)


def test_what_caches_decide_and_what_repeats_others_is_left_out() -> None:
    fed = point(1, 1, 0, 5e6)
    run = Run(host=HOST, scaling=[fed, point(2, 1, 0, 5e6, devices=10_000), point(2, 4, 0, 5e6, devices=1)])

    assert check(run) == []


def test_the_summary_marks_what_is_outside() -> None:
    assert summary(check(MEASURED)).startswith("2 points: off by ")
    run = Run(host=HOST, scaling=[point(1, 1, 0, 5e6), point(2, 2, 0, 1e6)])

    assert summary(check(run)) == (
        "no point was measured where it is valid; 1 points outside of its validity are marked"
    )
