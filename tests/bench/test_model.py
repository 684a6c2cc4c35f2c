"""The model against what must hold of any such network, and against points that it is fed with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shardio.bench.costs import Costs, Service, Spread
from shardio.bench.errors import BenchError
from shardio.bench.model import summary, validate
from shardio.bench.results import Figure, Percentiles, Point, Run, Unit
from shardio.bench.simulation import SLICE_NS, Prediction, _Cpu, predict
from tests.bench.test_results import HOST

pytest.importorskip("simpy")
COSTS = Costs(wire=50.0, dispatch=100.0)
NOTHING, LONG = Service(0.0), Service(10_000.0)


def point(vcpus: int, shards: int, handler_ns: int, rate: float, p99: float = 1.0) -> Point:
    trip = 1e9 / rate
    spread = Percentiles(trip, trip * p99, trip * p99)
    return Point(100, vcpus, shards, handler_ns, rate, 0.0, spread, oversubscribed=vcpus + shards > 2)


def test_one_vcpu_takes_the_sum_of_the_costs() -> None:
    found = predict(COSTS, 1, 1, NOTHING)

    assert found.latency.p50 == pytest.approx(200.0)
    assert found.rate == pytest.approx(5e6, rel=0.01)


@pytest.mark.parametrize("vcpus", [4, 16])
def test_one_shard_never_serves_more_than_its_service_time_allows(vcpus: int) -> None:
    found = predict(COSTS, vcpus, 1, LONG, accesses=60)

    assert found.rate <= 1e9 / (LONG.handler_ns + COSTS.dispatch) * 1.02


def test_as_many_shards_as_vcpus_scale() -> None:
    one, eight = predict(COSTS, 1, 1, LONG), predict(COSTS, 8, 8, LONG)

    assert eight.rate == pytest.approx(8 * one.rate, rel=0.1)


def test_both_on_one_cpu_take_two_switches_more() -> None:
    """Once both have learnt to yield at once: that is most of the time."""
    apart, together = predict(COSTS, 1, 1, NOTHING), predict(COSTS, 1, 1, NOTHING, cpus=1)

    assert together.latency.p50 == pytest.approx(apart.latency.p50 + 2 * COSTS.switch, rel=0.1)


def test_who_shares_a_cpu_with_a_busy_shard_waits_for_its_slice() -> None:
    """Three on two CPUs: the vCPU beside the shard is starved by the other one, which keeps it busy."""
    found = predict(COSTS, 2, 1, LONG, cpus=2)

    assert found.rate == pytest.approx(1e9 / (LONG.handler_ns + 2 * COSTS.wire + COSTS.dispatch), rel=0.1)
    assert found.latency.p50 < 2 * LONG.handler_ns
    assert found.latency.p999 > SLICE_NS / 2


def test_who_waits_long_sleeps_and_is_woken() -> None:
    slow = Service(100_000.0)

    found = predict(COSTS, 1, 1, slow)

    assert found.latency.p50 > slow.handler_ns + COSTS.wake


def test_the_same_seed_gives_the_same_prediction() -> None:
    assert predict(COSTS, 3, 2, LONG, accesses=50) == predict(COSTS, 3, 2, LONG, accesses=50)


def test_the_largest_machine_is_predicted_whole() -> None:
    found = predict(COSTS, 256, 64, Service(1000.0, Spread(2.0, 10.0)), accesses=30)

    assert found.rate == pytest.approx(64e9 / 1100, rel=0.1)
    assert found.latency.p50 < found.latency.p99 < found.latency.p999


def test_a_spread_is_what_its_percentiles_say() -> None:
    spread = Spread(2.0, 10.0)

    assert [spread.draw(chance) for chance in (0.0, 0.5, 0.99, 0.999)] == pytest.approx([1.0, 1.0, 2.0, 10.0])
    assert 1.0 < spread.mean < 1.3


@pytest.mark.timeout(10)
def test_the_rest_of_a_slice_that_no_clock_can_show_is_none() -> None:
    now = 2.0**25
    environment = pytest.importorskip("simpy").Environment(initial_time=now)
    cpu, me = _Cpu(environment, 0.0), object()
    cpu._holder = cpu._last = me
    cpu._since = now - SLICE_NS + 2.0**-28
    assert now + (SLICE_NS - (now - cpu._since)) == now

    environment.process(cpu.compute(me, 10.0))
    environment.run()

    assert environment.now == now + 10.0


def test_costs_come_from_the_points_without_a_queue() -> None:
    one_cpu = Figure("one-cpu", "", Unit.MICROSECONDS, 3.1, [3.1], operation=3100.0)
    run = Run(host=HOST, rows=[one_cpu], scaling=[point(1, 1, 0, 5e6), point(2, 1, 0, 6e6)])

    costs = Costs.measured(run)

    assert 2 * costs.wire + costs.dispatch == pytest.approx(200.0)
    assert 2 * costs.switch + costs.dispatch == pytest.approx(3100.0)


def test_a_handler_is_what_it_took_in_shards() -> None:
    service = Service.measured([point(1, 1, 0, 5e6), point(1, 1, 10_000, 1e9 / 8200, p99=3.0)], 10_000)

    assert service.handler_ns == pytest.approx(8000.0)
    assert service.spread.p99 == pytest.approx(3.0)


def test_costs_need_that_point() -> None:
    with pytest.raises(BenchError, match="1 vCPU x 1 shard"):
        Costs.measured(Run(host=HOST, scaling=[point(2, 2, 0, 1e6)]))


def test_what_it_is_fed_with_is_not_what_it_is_held_against() -> None:
    fed = [point(1, 1, 0, 5e6), point(1, 1, 10_000, 1e9 / 10_200)]
    run = Run(host=HOST, scaling=[*fed, point(2, 1, 10_000, 1e5)])

    found = validate(run)

    assert [check.point for check in found] == [run.scaling[2]]
    assert abs(found[0].error) < 0.15


@pytest.mark.parametrize(("change", "size"), [(lambda p: p, "0%"), (lambda p: 2 * p, "50%")])
def test_errors_are_told_apart_for_shared_cpus(change: Callable[[float], float], size: str) -> None:
    run = Run(host=HOST, scaling=[point(1, 1, 0, 5e6), point(2, 2, 0, 5e6)])
    check = validate(run)[0]
    met: Prediction = check.prediction
    same = type(check)(point(2, 2, 0, change(met.rate)), met, "x")

    lines = summary([same])

    assert lines[0] == "points with a CPU for each vCPU and shard: none was measured"
    assert lines[1].startswith(f"1 points that share CPUs: rate off by {size} in the median")
