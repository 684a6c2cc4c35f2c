"""A shard seen from the VMM, without a process: devices in messages, and how many deaths are too many."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from shardio.shard import protocol
from shardio.shard.loading import Packed
from shardio.supervisor.shard_process import (
    DEATHS,
    DEATHS_WITHIN_S,
    DeviceRecord,
    ShardProcess,
    _all,
    _batches,
    _message,
)  # fmt: skip
from tests.fabric.support import bench


def record(name: str, fds: int = 0, passed: Sequence[int] = ()) -> DeviceRecord:
    spec = protocol.DeviceSpec(name, Packed(b"", b""), [], passed=list(passed))
    return DeviceRecord(spec, range(100, 100 + fds))


def test_a_message_has_no_more_descriptors_than_it_can_carry() -> None:
    records = [record(str(n), fds=2) for n in range(protocol.MAX_FDS)]

    batches = _batches(records)

    assert [len(batch) for batch in batches] == [protocol.MAX_FDS // 2] * 2
    assert [each for batch in batches for each in batch] == records


def test_descriptors_are_in_the_message_in_the_order_of_the_devices() -> None:
    records = [record("a", 1, passed=[7]), record("b"), record("c", 2, passed=[8, 9])]
    make, fds = _message(records, True, ())
    made = make(7)

    assert (made.serial, made.serve, fds) == (7, True, [100, 100, 101])
    assert [spec.passed for spec in made.devices] == [[7], [], [8, 9]]


def test_all_answers_are_waited_for() -> None:
    first, second = Future[Any](), Future[Any]()
    whole = _all([first, second])
    first.set_result(None)
    early = whole.done()
    second.set_result(None)

    assert (early, whole.done()) == (False, True)


def test_the_first_failure_is_the_failure_of_all() -> None:
    first, second = Future[Any](), Future[Any]()
    whole = _all([first, second])
    first.set_exception(ValueError("first"))
    second.set_exception(ValueError("second"))

    assert str(whole.exception()) == "first"


@pytest.mark.parametrize(
    ("deaths", "expected"),
    [(DEATHS - 1, False), (DEATHS, True)],
)
def test_so_many_deaths_are_too_often(deaths: int, expected: bool) -> None:
    with bench() as b:
        shard = ShardProcess(b.fabric, 0, "shard0")
        shard.deaths.extend(range(deaths))
        shard.close()

        assert shard.dies_too_often is expected


def test_deaths_that_lie_far_apart_are_not_too_often() -> None:
    with bench() as b:
        shard = ShardProcess(b.fabric, 0, "shard0")
        shard.deaths.extend(n * DEATHS_WITHIN_S / (DEATHS - 1) for n in range(DEATHS))
        shard.close()

        assert not shard.dies_too_often
