"""A dead owner's requests, by policy: none is lost, and none applied twice where that must not be."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shardio._core import ffi, lib
from shardio.supervisor.context import Context
from shardio.supervisor.failover import Failover, Policy
from shardio.supervisor.shard_process import ShardProcess
from tests.fabric.support import BASE, MMIO, bench

READ, WRITE = 0, lib.SIO_WRITE
DIRECTIONS = pytest.mark.parametrize("op", [READ, WRITE], ids=["read", "write"])
SEQ = 5
STATE = SEQ << 2 | lib.SIO_REQUEST


def in_flight(fabric: Any, op: int, *, taken: bool, vcpu: int = 0, seq: int = SEQ) -> Any:
    """A request of range 3 in the mailbox of shard 0; `taken`: its owner died with it."""
    box = lib.sio_mailbox(fabric.view, 0, vcpu)
    box.address, box.range, box.op, box.size, box.space = BASE, 3, op, 4, MMIO
    box.state = seq << 2 | lib.SIO_REQUEST
    if taken:
        fabric.view.shard[0].taken = vcpu << 48 | seq
    return box


class Recovery(Failover):
    """The failover of shard 0 alone, which `judge` watches; `settle` as after its death."""

    def __init__(self, fabric: Any, judge: Judge) -> None:
        self.judge = judge
        self.posted: list[int] = []
        context = SimpleNamespace(
            fabric=fabric, posted=lambda vcpu, _: self.posted[vcpu] if self.posted else 0
        )
        super().__init__(cast(Context, context), cast(Any, None), judge, cast(Any, None), None, None)
        self.shard = cast(
            ShardProcess, SimpleNamespace(index=0, name="a", dies_too_often=False, deaths=deque())
        )

    def settle(self) -> None:
        self._settle(self.shard)

    def _quarantine(self, shard: ShardProcess, ranges: set[int]) -> None:
        self.judge.quarantine(ranges)


class Judge:
    """A policy that remembers what it was asked, and the quarantines."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.quarantine: Callable[[set[int]], None] = lambda ranges: self.quarantined.append(ranges)
        self.asked: list[tuple[int, bool]] = []
        self.quarantined: list[set[int]] = []

    def __call__(self, index: int, write: bool) -> Policy:
        self.asked.append((index, write))
        return self.policy


@DIRECTIONS
@pytest.mark.parametrize("policy", Policy)
def test_a_request_that_was_not_taken_waits_for_the_successor(op: int, policy: Policy) -> None:
    with bench(vcpus=2) as b:
        judge = Judge(policy)
        recovery = Recovery(b.fabric, judge)
        box = in_flight(b.fabric, op, taken=False)

        recovery.settle()

        assert (box.state, judge.asked, judge.quarantined) == (STATE, [], [])


@DIRECTIONS
def test_a_taken_request_that_may_be_replayed_waits_for_the_successor(op: int) -> None:
    with bench(vcpus=2) as b:
        judge = Judge(Policy.REPLAY)
        box = in_flight(b.fabric, op, taken=True)

        Recovery(b.fabric, judge).settle()

        assert (box.state, judge.asked, judge.quarantined) == (STATE, [(3, op == WRITE)], [])


@DIRECTIONS
def test_a_taken_request_that_may_not_is_refused(op: int) -> None:
    with bench(vcpus=2) as b:
        judge = Judge(Policy.FAIL)
        box = in_flight(b.fabric, op, taken=True)

        Recovery(b.fabric, judge).settle()

        assert (box.state, box.data) == (SEQ << 2 | lib.SIO_REFUSED, 2**64 - 1)
        assert (judge.asked, judge.quarantined) == ([(3, op == WRITE)], [])


@DIRECTIONS
def test_a_request_that_kills_two_owners_is_refused_and_its_range_quarantined_first(op: int) -> None:
    with bench() as b:
        judge = Judge(Policy.REPLAY)
        recovery = Recovery(b.fabric, judge)
        states: list[int] = []
        box = in_flight(b.fabric, op, taken=True)
        recovery.settle()
        in_flight(b.fabric, op, taken=True)

        judge.quarantine = lambda ranges: (judge.quarantined.append(ranges), states.append(box.state))[0]
        recovery.settle()

        assert (judge.quarantined, states) == ([{3}], [STATE])
        assert box.state & 3 == lib.SIO_REFUSED


@DIRECTIONS
def test_a_successor_that_dies_before_it_takes_the_request_is_no_second_victim(op: int) -> None:
    with bench() as b:
        judge = Judge(Policy.REPLAY)
        recovery = Recovery(b.fabric, judge)
        box = in_flight(b.fabric, op, taken=True)
        recovery.settle()

        recovery.settle()

        assert (box.state, judge.quarantined) == (STATE, [])


@DIRECTIONS
def test_another_request_of_the_same_vcpu_begins_anew(op: int) -> None:
    with bench() as b:
        judge = Judge(Policy.REPLAY)
        recovery = Recovery(b.fabric, judge)
        in_flight(b.fabric, op, taken=True)
        recovery.settle()
        box = in_flight(b.fabric, op, taken=True, seq=SEQ + 1)

        recovery.settle()

        assert (box.state & 3, judge.quarantined) == (lib.SIO_REQUEST, [])


@DIRECTIONS
def test_only_the_request_that_was_taken_is_judged(op: int) -> None:
    with bench(vcpus=3) as b:
        judge = Judge(Policy.FAIL)
        boxes = [in_flight(b.fabric, op, taken=vcpu == 1, vcpu=vcpu) for vcpu in range(3)]
        b.fabric.view.shard[0].taken = 1 << 48 | SEQ

        Recovery(b.fabric, judge).settle()

        assert [box.state & 3 for box in boxes] == [lib.SIO_REQUEST, lib.SIO_REFUSED, lib.SIO_REQUEST]


@DIRECTIONS
def test_a_shard_that_is_given_up_refuses_every_request_and_makes_room(op: int) -> None:
    with bench(vcpus=2) as b:
        recovery = Recovery(b.fabric, Judge(Policy.REPLAY))
        boxes = [in_flight(b.fabric, op, taken=False, vcpu=vcpu) for vcpu in range(2)]

        recovery.posted = [10, 11]
        recovery.refuse(recovery.shard)

        assert [box.state & 3 for box in boxes] == [lib.SIO_REFUSED] * 2
        rings = [lib.sio_credit(b.fabric.view, 0, vcpu) for vcpu in range(2)]
        assert [(credit.credit, credit.taken) for credit in rings] == [(10, 10), (11, 11)]


@pytest.mark.parametrize(("shard", "vcpu"), [(1, 0), (0, 2), (2**32 - 1, 0)])
def test_no_request_is_looked_for_outside_the_fabric(shard: int, vcpu: int) -> None:
    with bench(vcpus=2) as b:
        assert (
            lib.sio_recover_request(
                b.fabric.view, shard, vcpu, ffi.new("struct sio_request *"), ffi.new("int *")
            )
            == 0
        )


def test_each_owner_has_an_epoch_of_its_own() -> None:
    with bench() as b:
        epochs = [lib.sio_recover_epoch(b.fabric.view, 0) for _ in range(3)]
        b.owner()

        assert epochs == [1, 2, 3]
        assert b.fabric.view.shard[0].epoch == 3
