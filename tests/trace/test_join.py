"""Accesses whose two sides were recorded apart."""

from __future__ import annotations

from typing import Any, cast

import pytest

from shardio._core import lib
from shardio.trace import Access, Interrupt, Record
from shardio.trace.join import HOLD_NS, Join
from shardio.trace.rings import NO_RANGE, Clock, Raw
from shardio.trace.values import Outcome, Way

WRITE, POSTED, COALESCED = lib.SIO_TRACE_WRITE, lib.SIO_TRACE_POSTED, lib.SIO_TRACE_COALESCED


class Ticks:
    """A clock whose ticks are nanoseconds."""

    def ns(self, ticks: int) -> int:
        return ticks


@pytest.fixture
def join() -> Join:
    """Range 3 is the uart's; shard 1 is "io"."""
    return Join(cast(Clock, Ticks()), {3: "uart"}.get, {1: "io"}.__getitem__)


def client(begin: int, end: int, **changes: Any) -> Raw:
    """A client's record of message 9."""
    return raw(lib.SIO_TRACE_ACCESS, begin, end, **changes)


def owner(begin: int, end: int, **changes: Any) -> Raw:
    """The owner's."""
    return raw(lib.SIO_TRACE_SERVICE, begin, end, **changes)


def raw(kind: int, begin: int, end: int, **changes: Any) -> Raw:
    """A record of any kind."""
    told = Raw(0, begin, end, 0x3F8, 0x41, 9, 3, 2, 1, 0, kind, 1, 0, lib.SIO_TRACE_ANSWERED)
    return told._replace(**changes)


def access(time_ns: int, **changes: Any) -> Access:
    """What the two records above become."""
    told: dict[str, Any] = {
        "vcpu": 2, "device": "uart", "shard": "io", "space": "pio", "address": 0x3F8, "width": 1,
        "write": False, "value": 0x41, "outcome": Outcome.ANSWERED, "way": Way.WAITED,
    }  # fmt: skip
    return Access(time_ns, **told | changes)


BOTH = access(100, wait_ns=900, service_time_ns=300, service_ns=200)


@pytest.mark.parametrize(
    ("first", "second"),
    [(client(100, 1000), owner(300, 500)), (owner(300, 500), client(100, 1000))],
)
def test_two_sides_become_one_access_whichever_comes_first(join: Join, first: Raw, second: Raw) -> None:
    join.add([first, second])

    assert join.take(1000) == [BOTH]
    assert join.take(None) == []


def test_two_sides_that_are_collected_apart_become_one_access(join: Join) -> None:
    join.add([owner(300, 500)])
    early = join.take(1000)
    join.add([client(100, 1000)])

    assert early == []
    assert join.take(2000) == [BOTH]


def test_a_side_that_stays_alone_is_given_out_after_a_while(join: Join) -> None:
    join.add([client(100, 1000), owner(300, 500, message=10)])
    early = join.take(500 + HOLD_NS)
    late = join.take(1001 + HOLD_NS)

    assert early + late == [access(100, wait_ns=900), access(300, service_time_ns=300, service_ns=200)]


def test_a_posted_writes_device_says_how_it_ended(join: Join) -> None:
    join.add([client(100, 120, flags=WRITE | POSTED)])
    early = join.take(5000)
    join.add([owner(10_000, 10_500, flags=WRITE | POSTED, outcome=lib.SIO_TRACE_REFUSED)])
    [joined] = join.take(20_000)

    assert early == []
    assert joined == access(
        100, write=True, way=Way.POSTED, outcome=Outcome.REFUSED, wait_ns=20, service_time_ns=10_000,
        service_ns=500,
    )  # fmt: skip


def test_a_posted_position_is_no_requests_number(join: Join) -> None:
    join.add([client(100, 120, flags=WRITE | POSTED), owner(110, 115)])

    assert len(join.take(None)) == 2


def test_a_coalesced_write_is_nobodys(join: Join) -> None:
    join.add([owner(300, 500, flags=WRITE | COALESCED, vcpu=lib.SIO_TRACE_NO_VCPU)])

    assert join.take(0) == [
        access(300, vcpu=None, write=True, way=Way.COALESCED, service_time_ns=300, service_ns=200)
    ]


@pytest.mark.parametrize(("code", "outcome"), [
    (lib.SIO_TRACE_UNCLAIMED, Outcome.UNCLAIMED), (lib.SIO_TRACE_CROSSING, Outcome.CROSSING),
    (lib.SIO_TRACE_QUARANTINED, Outcome.QUARANTINED),
])  # fmt: skip
def test_what_went_nowhere_waits_for_nobody(join: Join, code: int, outcome: Outcome) -> None:
    join.add([client(100, 150, range=NO_RANGE, outcome=code)])

    assert join.take(0) == [
        access(100, device=None, shard=None, outcome=outcome, way=Way.NOWHERE, wait_ns=50)
    ]


def test_records_are_given_out_in_the_order_of_their_times(join: Join) -> None:
    join.add([owner(300 + n, 310 + n, message=n) for n in (5, 3, 4)])
    join.add([client(100 + n, 400 + n, message=n) for n in (3, 4, 5)])

    assert [record.time_ns for record in join.take(0)] == [103, 104, 105]


def test_lines_that_are_delivered_together_are_records_of_their_own(join: Join) -> None:
    join.add([raw(lib.SIO_TRACE_DELIVERED, 5, 5, value=0b10010, size=0)])
    found: list[Record] = join.take(0)

    assert sorted(each.number for each in found if isinstance(each, Interrupt)) == [1, 4]


@pytest.mark.parametrize("changes", [
    {"kind": 200}, {"shard": 63}, {"vcpu": 5000}, {"outcome": 99}, {"range": 2**32 - 1}, {"flags": 255},
    {"value": 2**64 - 1, "kind": lib.SIO_TRACE_DELIVERED, "size": 0},
    {"value": 0, "kind": lib.SIO_TRACE_DELIVERED, "size": 0},
    {"address": 2**64 - 1, "kind": lib.SIO_TRACE_RUNG},
])  # fmt: skip
def test_what_a_shard_invents_does_no_harm(changes: dict[str, int]) -> None:
    join = Join(cast(Clock, Ticks()), {3: "uart"}.get, str)
    join.add([owner(300, 500)._replace(**changes), client(100, 1000)])

    assert any(isinstance(each, Access) and each.wait_ns == 900 for each in join.take(None))
