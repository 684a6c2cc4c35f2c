"""Two real processes: blocks of the floor, of every kind of work, and local calls."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from shardio._measure import lib
from shardio.bench.blocks import SAMPLE_EVERY, address_array, new_block
from shardio.bench.errors import BenchError
from shardio.bench.pair import POSTED_WARM_UP, Handlers, Pair, Setting

BASE, MMIO, PAGE, N = 0xD000_0000, 1, 0x1000, 256


@pytest.fixture
def setting() -> Setting:
    return Setting(
        [
            Handlers(0, MMIO, BASE, PAGE, "native"),
            Handlers(1, MMIO, BASE + PAGE, PAGE, "register"),
            Handlers(2, MMIO, BASE + 2 * PAGE, PAGE, "register", posted=True),
        ],
        vcpus=2,
    )


@pytest.fixture
def pair(setting: Setting) -> Iterator[Pair]:
    cpus = sorted(os.sched_getaffinity(0))
    with Pair([setting], (cpus[0], cpus[-1])) as made:
        made.again = False
        yield made


def test_blocks_of_floor_work_and_local_calls(pair: Pair, setting: Setting) -> None:
    client, posted = setting.client(), setting.client(1)

    floor = pair.floor(N)
    native = pair.work(client, N, MMIO, address_array([BASE]))
    python = pair.work(client, N, MMIO, address_array([BASE, BASE + PAGE]), write=True)
    messages = pair.work(posted, N, MMIO, address_array([BASE + 2 * PAGE]), write=True, posted=BASE)
    local = pair.local(1000, index=1)

    assert all(block.ns > 0 for block in (*floor, native, python, messages))
    assert len(floor.pause.samples) == len(floor.bare.samples) == len(native.samples) == N // SAMPLE_EVERY
    assert local > 0
    assert setting.fabric.service(0, 0).reads >= N
    assert setting.fabric.service(0, 2).posted == POSTED_WARM_UP + N


def test_an_access_that_nobody_answers_is_an_error(pair: Pair, setting: Setting) -> None:
    with pytest.raises(BenchError, match="not answered"):
        pair.work(setting.client(), N, MMIO, address_array([BASE - PAGE]))


def test_the_cpus_of_this_process_come_back(setting: Setting) -> None:
    before = os.sched_getaffinity(0)

    with Pair([setting], (min(before), max(before))):
        during = os.sched_getaffinity(0)

    assert during == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_addresses_are_a_power_of_two() -> None:
    with pytest.raises(BenchError, match="3 addresses"):
        address_array([1, 2, 3])


def test_a_block_whose_time_is_up_at_once_still_counts_accesses(pair: Pair, setting: Setting) -> None:
    """A thread that loses its CPU before its first access must not leave a rate of 0."""
    client, block = setting.client(), new_block(N, [BASE], space=MMIO, size=4, until=1)

    lib.sio_measure_access(client.view, block)

    assert block.done == SAMPLE_EVERY
