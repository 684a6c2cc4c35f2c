"""An owner whose clients lie: each word that a client can write, with any value, is refused and counted,
never followed; what was true beside it is served.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardio import MmioRange
from shardio._core import ffi, lib
from tests.fabric.support import BASE, MMIO, Bench, Log, bench

SIZE = 0x100
U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))


def request(b: Bench, shard: int = 0, vcpu: int = 0, **fields: int) -> Any:
    """A good read of 4 bytes in the mailbox, but for `fields`."""
    box = lib.sio_mailbox(b.fabric.view, shard, vcpu)
    good = {
        "address": BASE,
        "data": 0,
        "posted_upto": 0,
        "range": 0,
        "count": 0,
        "op": 0,
        "size": 4,
        "space": MMIO,
    }
    for name, value in {**good, **fields}.items():
        setattr(box, name, value)
    box.state = fields.get("state", 1 << 2 | lib.SIO_REQUEST)
    return box


def one_device(b: Bench) -> tuple[Any, Log]:
    device, owner = Log(), b.owner()
    b.add(owner, device, MmioRange(BASE, SIZE), posted=True)
    return owner, device


BAD = [
    ("range", 1),
    ("range", 7),
    ("range", 8),
    ("range", 0xFFFF),
    ("size", 0),
    ("size", 3),
    ("size", 16),
    ("size", 255),
    ("space", 0),
    ("space", 2),
    ("space", 255),
    ("address", BASE - 1),
    ("address", BASE + SIZE),
    ("address", 0),
    ("address", BASE + SIZE - 3),
    ("address", 2**64 - 1),
    ("address", 2**64 - 3),
    ("posted_upto", 1),
    ("posted_upto", 8),
    ("posted_upto", 9),
    ("posted_upto", 2**63),
    ("posted_upto", 2**64 - 1),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_lie_in_a_read_request_is_refused_and_counted(field: str, value: int) -> None:
    with bench() as b:
        owner, device = one_device(b)
        box = request(b, **{field: value})

        assert owner.scan() == 1

        assert (box.state, box.data) == (1 << 2 | lib.SIO_REFUSED, 2**64 - 1)
        assert b.fabric.shard_counters(0).malformed == 1
        assert device.seen == []


@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_lie_in_a_write_request_is_refused_and_counted(field: str, value: int) -> None:
    with bench() as b:
        owner, device = one_device(b)
        box = request(b, **{"op": lib.SIO_WRITE, field: value})

        assert owner.scan() == 1

        assert box.state == 1 << 2 | lib.SIO_REFUSED
        assert b.fabric.shard_counters(0).malformed == 1
        assert device.seen == []


STRINGS = [(4, 0), (1, 4097), (8, 513), (4, 0xFFFF)]


@pytest.mark.parametrize(("size", "count"), STRINGS)
def test_a_read_string_of_an_impossible_length_is_refused(size: int, count: int) -> None:
    with bench() as b:
        owner, device = one_device(b)
        box = request(b, op=lib.SIO_STRING, size=size, count=count)

        owner.scan()

        assert box.state == 1 << 2 | lib.SIO_REFUSED
        assert (b.fabric.shard_counters(0).malformed, device.seen) == (1, [])


@pytest.mark.parametrize(("size", "count"), STRINGS)
def test_a_written_string_of_an_impossible_length_is_refused(size: int, count: int) -> None:
    with bench() as b:
        owner, device = one_device(b)
        box = request(b, op=lib.SIO_STRING | lib.SIO_WRITE, size=size, count=count)

        owner.scan()

        assert box.state == 1 << 2 | lib.SIO_REFUSED
        assert (b.fabric.shard_counters(0).malformed, device.seen) == (1, [])


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "state": U64,
            "address": st.one_of(U64, st.integers(BASE - 8, BASE + SIZE + 8)),
            "data": U64,
            "posted_upto": st.one_of(U64, st.integers(0, 9)),
            "range": st.one_of(U16, st.integers(0, 9)),
            "count": st.one_of(U16, st.integers(0, 4)),
            "op": U8,
            "size": st.one_of(U8, st.sampled_from([1, 2, 4, 8])),
            "space": st.one_of(U8, st.integers(0, 1)),
        },
    ),
    st.binary(min_size=16, max_size=16),
)
@settings(max_examples=80)
def test_whatever_a_mailbox_holds_a_handler_sees_accesses_inside_its_range(
    fields: dict[str, int], side: bytes
) -> None:
    with bench() as b:
        owner, device = one_device(b)
        ffi.memmove(lib.sio_side(b.fabric.view, 0), side, len(side))
        box = request(b, **fields)
        was_request = box.state & 3 == lib.SIO_REQUEST

        assert owner.scan() == int(was_request)

        assert all(size in (1, 2, 4, 8) and 0 <= offset <= SIZE - size for offset, size, _ in device.seen)
        assert all(value is None or value < 1 << 8 * size for _, size, value in device.seen)
        assert box.state & 3 in ((lib.SIO_DONE, lib.SIO_REFUSED) if was_request else (0, 2, 3))


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "lap": st.one_of(st.just(1), U16),
                "range": st.one_of(st.just(0), U16, st.integers(0, 9)),
                "data": U64,
                "where": st.one_of(U32, st.integers(0, 4 * SIZE + 3)),
            }
        ),
        min_size=8,
        max_size=8,
    )
)
@settings(max_examples=80)
def test_whatever_a_ring_holds_a_handler_sees_writes_inside_its_range(slots: list[dict[str, int]]) -> None:
    with bench(posted_slots=8) as b:
        owner, device = one_device(b)
        ring = lib.sio_ring(b.fabric.view, 0, 0)
        for n, fields in enumerate(slots):
            for name, value in fields.items():
                setattr(ring[n], name, value)
        filled = next((n for n, fields in enumerate(slots) if fields["lap"] != 1), len(slots))

        assert owner.scan() == filled

        good = [
            (f["where"] >> 2, 1 << (f["where"] & 3), f["data"] & (1 << (8 << (f["where"] & 3))) - 1)
            for f in slots[:filled]
            if f["range"] == 0 and (f["where"] >> 2) + (1 << (f["where"] & 3)) <= SIZE
        ]
        assert device.seen == good
        assert b.fabric.shard_counters(0).malformed == filled - len(good)


@given(U64)
@settings(max_examples=25)
def test_a_cursor_of_any_value_is_where_a_successor_begins(taken: int) -> None:
    with bench(posted_slots=8) as b:
        lib.sio_credit(b.fabric.view, 0, 0).taken = taken
        owner, device = one_device(b)

        owner.scan()

        assert len(device.seen) + b.fabric.shard_counters(0).malformed <= 8


@given(U64, U64, U64)
@settings(max_examples=25)
def test_an_owner_serves_whatever_its_control_words_hold(need_wakeup: int, epoch: int, progress: int) -> None:
    with bench() as b:
        control = b.fabric.view.shard[0]
        control.need_wakeup, control.owner_epoch, control.progress = need_wakeup, epoch, progress
        owner, device = one_device(b)
        box = request(b)
        control.need_wakeup = need_wakeup

        owner.turn(0)

        assert (box.state & 3, len(device.seen)) == (lib.SIO_DONE, 1)


@given(U32)
@settings(max_examples=25)
def test_a_reply_wakes_whatever_the_clients_doze_word_holds(need_wakeup: int) -> None:
    with bench() as b:
        owner, _ = one_device(b)
        b.fabric.view.vcpu[0].need_wakeup = need_wakeup
        box = request(b)

        owner.scan()

        assert box.state & 3 == lib.SIO_DONE
        assert b.fabric.view.vcpu[0].need_wakeup == (0 if need_wakeup == 1 else need_wakeup)


def test_lies_of_one_vcpu_do_not_touch_another() -> None:
    with bench(vcpus=2) as b:
        owner, device = one_device(b)
        bad, good = request(b, vcpu=0, range=0xFFFF), request(b, vcpu=1)

        assert owner.scan() == 2

        assert (bad.state & 3, good.state & 3) == (lib.SIO_REFUSED, lib.SIO_DONE)
        assert len(device.seen) == 1
