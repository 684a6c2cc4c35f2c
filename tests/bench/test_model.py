"""The queueing model against what must hold of any such network, and against points that it is fed with."""

from __future__ import annotations

import pytest

from shardio.bench.errors import BenchError
from shardio.bench.model import Costs, predict, typical_error, validate
from shardio.bench.results import Percentiles, Point, Run
from tests.bench.test_results import HOST

pytest.importorskip("simpy")
COSTS = Costs(wire=50.0, dispatch=100.0)
HANDLER_NS = 10_000.0


def point(vcpus: int, shards: int, handler_ns: int, rate: float) -> Point:
    trip = 1e9 / rate
    return Point(1, vcpus, shards, handler_ns, rate, 0.0, Percentiles(trip, trip, trip), oversubscribed=False)


def test_one_vcpu_takes_the_sum_of_the_costs() -> None:
    found = predict(COSTS, 1, 1, 0.0)

    assert found.latency.p50 == pytest.approx(200.0)
    assert found.rate == pytest.approx(5e6, rel=0.01)


@pytest.mark.parametrize("vcpus", [4, 16])
def test_one_shard_never_serves_more_than_its_service_time_allows(vcpus: int) -> None:
    found = predict(COSTS, vcpus, 1, HANDLER_NS, accesses=60)

    assert found.rate <= 1e9 / (HANDLER_NS + COSTS.dispatch) * 1.01


def test_as_many_shards_as_vcpus_scale() -> None:
    one, eight = predict(COSTS, 1, 1, HANDLER_NS), predict(COSTS, 8, 8, HANDLER_NS)

    assert eight.rate == pytest.approx(8 * one.rate, rel=0.1)


def test_sharing_one_cpu_is_slower_than_having_two() -> None:
    assert predict(COSTS, 1, 1, HANDLER_NS, cpus=1).rate < predict(COSTS, 1, 1, HANDLER_NS, cpus=2).rate


def test_the_same_seed_gives_the_same_prediction() -> None:
    assert predict(COSTS, 3, 2, HANDLER_NS, accesses=50) == predict(COSTS, 3, 2, HANDLER_NS, accesses=50)


def test_costs_come_from_the_point_without_a_queue() -> None:
    run = Run(host=HOST, scaling=[point(1, 1, 0, 5e6), point(2, 1, 0, 6e6)])

    costs = Costs.measured(run)

    assert 2 * costs.wire + costs.dispatch == pytest.approx(200.0)


def test_costs_need_that_point() -> None:
    with pytest.raises(BenchError, match="1 vCPU x 1 shard"):
        Costs.measured(Run(host=HOST, scaling=[point(2, 2, 0, 1e6)]))


def test_the_point_that_it_is_fed_with_is_met() -> None:
    run = Run(host=HOST, scaling=[point(1, 1, 0, 5e6), point(1, 1, 10_000, 1e9 / 10_200)])

    found = validate(run)

    assert len(found) == 2
    assert typical_error(found) < 0.15
