"""A client among liars: each word that an owner or the VMM can write, with any value, leads to no access
outside the segment's parts, no answer that is not one, and no wait that cannot be ended.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardio import MmioRange
from shardio._core import ffi, lib
from shardio.fabric import Outcome
from tests.fabric.support import BASE, MMIO, PATIENCE_S, Bench, Log, bench

U32, U64 = (st.integers(0, 2**bits - 1) for bits in (32, 64))
POSTED = 0x4000


@contextmanager
def answering(b: Bench, answer: Callable[[int], tuple[int, int]]) -> Iterator[None]:
    """An owner that puts what `answer(request state)` gives into (state, data) of vCPU 0's mailbox, once. It
    says that it sleeps, so the client rings for it.
    """
    box = lib.sio_mailbox(b.fabric.view, 0, 0)
    b.fabric.view.shard[0].need_wakeup = 1

    def serve() -> None:
        select.select([b.doorbells[0]], [], [], PATIENCE_S)
        new, box.data = answer(box.state)
        box.state = new

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join()


class Liar:
    """Answers a request of state s with the state s + `lie`, and `data`."""

    def __init__(self, lie: int, data: int) -> None:
        self.lie, self.data = lie, data
        self.true = self.malformed = False
        """Whether it said "done" of this very request; whether what it said was no answer to it at all."""

    def __call__(self, state: int) -> tuple[int, int]:
        said = (state + self.lie) % 2**64
        self.true = said == state + 1
        self.malformed = said not in (state + 1, state + 2)
        return said, self.data


# A state that is not the request's own: what leaves it as it is, is silence.
LIARS = st.builds(Liar, st.one_of(U64, st.integers(-9, 9)).filter(lambda lie: lie != 0), U64)


@given(LIARS, st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=50)
def test_a_reply_of_any_state_to_a_read_is_an_answer_only_if_it_is_one(liar: Liar, size: int) -> None:
    with bench() as b:
        _, _, client = b.connect(Log())

        with answering(b, liar):
            got = client.read(MMIO, BASE, size)

        ones = (1 << 8 * size) - 1
        assert got == ((Outcome.ANSWERED, liar.data & ones) if liar.true else (Outcome.NOT_ANSWERED, ones))
        assert b.fabric.vcpu_counters(0).malformed == liar.malformed


@given(LIARS)
@settings(max_examples=50)
def test_a_reply_of_any_state_to_a_write_is_an_answer_only_if_it_is_one(liar: Liar) -> None:
    with bench() as b:
        _, _, client = b.connect(Log())

        with answering(b, liar):
            got = client.write(MMIO, BASE, 4, 0)

        assert got is (Outcome.ANSWERED if liar.true else Outcome.NOT_ANSWERED)
        assert b.fabric.vcpu_counters(0).malformed == liar.malformed


@given(U64)
@settings(max_examples=50)
def test_credit_that_cannot_be_is_no_room(credit: int) -> None:
    with bench(posted_slots=8) as b:
        _, _, client = b.connect(Log(), MmioRange(POSTED, 0x100), posted=True)
        for value in range(8):
            client.write(MMIO, POSTED, 4, value)
        lib.sio_credit(b.fabric.view, 0, 0).credit = credit
        client.abort()

        outcome = client.write(MMIO, POSTED, 4, 8)

        believable = 1 <= credit <= 8
        assert outcome is (Outcome.ANSWERED if believable else Outcome.ABORTED)
        assert b.fabric.vcpu_counters(0).malformed == int(not believable and credit != 0)


MAP = st.fixed_dictionaries(
    {
        "base": st.one_of(st.just(BASE), U64),
        "last": st.one_of(st.just(BASE + 0xFF), U64),
        "shards": st.one_of(st.just(1), U64),
        "range": st.one_of(st.just(0), U32, st.integers(0, 9)),
        "flags": st.one_of(st.just(0), U32, st.integers(0, 3)),
    }
)


@given(st.lists(MAP, max_size=8), st.integers(0, 8), st.integers(0, 1), U64, st.booleans())
@settings(max_examples=80)
def test_whatever_entries_a_map_holds_an_access_ends(
    entries: list[dict[str, int]], pio: int, space: int, address: int, write: bool
) -> None:
    with bench(shards=2, ranges=8, posted_slots=8) as b:
        table = ffi.new("struct sio_map_entry[]", entries or [{}])
        ports = min(pio, len(entries))
        assert lib.sio_map_publish(b.fabric.view, table, ports, len(entries) - ports) == 0
        client = b.client()
        client.abort()  # nobody answers: what is asked is given up at once

        at = address if address % 2 else BASE + address % 0x100
        outcome = client.write(space, at, 4, 0) if write else client.read(space, at, 4)[0]

        claimed = any(e["base"] <= at <= e["last"] for e in entries)
        assert outcome in (
            (Outcome.NOT_ANSWERED, Outcome.ABORTED, Outcome.ANSWERED) if claimed else (Outcome.NOT_ANSWERED,)
        )
        assert b.fabric.vcpu_counters(0).malformed == 0


def test_a_map_of_more_entries_than_ranges_is_not_published() -> None:
    with bench(ranges=2) as b:
        table = ffi.new("struct sio_map_entry[3]")

        assert lib.sio_map_publish(b.fabric.view, table, 2, 1) == -errno.ENOSPC
        assert lib.sio_map_generation(b.fabric.view) == 0


@given(U64, U32)
@settings(max_examples=50)
def test_an_access_is_answered_whatever_the_doze_words_hold(need_wakeup: int, own: int) -> None:
    with bench() as b:
        device = Log([7])
        owner, _, client = b.connect(device)

        with b.serving(owner):
            b.fabric.view.shard[0].need_wakeup = need_wakeup
            b.fabric.view.vcpu[0].need_wakeup = own
            answer = client.read(MMIO, BASE, 4)

        assert answer == (Outcome.ANSWERED, 7)


@pytest.mark.parametrize("need_wakeup", [1, 3, 2**64 - 1])
def test_a_shard_that_pretends_to_sleep_is_rung_once_a_need_wakeup(need_wakeup: int) -> None:
    with bench(posted_slots=8) as b:
        _, _, client = b.connect(Log(), MmioRange(POSTED, 0x100), posted=True)
        b.fabric.view.shard[0].need_wakeup = need_wakeup

        for value in range(8):
            client.write(MMIO, POSTED, 4, value)

        assert os.eventfd_read(b.doorbells[0]) == 1
        assert b.fabric.vcpu_counters(0).doorbells == 1


@given(st.binary(min_size=16, max_size=16).map(lambda piece: piece * 256))
@settings(max_examples=10)
def test_a_read_string_gives_the_side_page_whatever_it_holds(side: bytes) -> None:
    with bench() as b:
        _, _, client = b.connect(Log())
        ffi.memmove(lib.sio_side(b.fabric.view, 0), side, len(side))

        with answering(b, lambda state: (state + 1, 0)):
            answer = client.read_string(MMIO, BASE, 2, 2048)

        assert answer == (Outcome.ANSWERED, side)


@given(st.binary(min_size=16, max_size=16).map(lambda piece: piece * 256))
@settings(max_examples=10)
def test_a_written_string_is_carried_whatever_the_side_page_held(side: bytes) -> None:
    with bench() as b:
        _, _, client = b.connect(Log())

        with answering(b, lambda state: (state + 1, 0)):
            outcome = client.write_string(MMIO, BASE, 8, side)

        assert outcome is Outcome.ANSWERED
        assert bytes(ffi.buffer(lib.sio_side(b.fabric.view, 0), 4096)) == side


@given(U64, U32)
@settings(max_examples=25)
def test_only_granted_interrupt_lines_are_taken_from_a_reply(lines: int, granted: int) -> None:
    with bench() as b:
        _, _, client = b.connect(Log())
        client.view.granted[0] = granted
        words = ffi.cast("uint64_t *", lib.sio_mailbox(b.fabric.view, 0, 0))

        def answer(state: int) -> tuple[int, int]:
            words[5] = lines  # at byte 40: native/layout.h asserts it; Python has no name for it
            return state + 1, 0

        with answering(b, answer):
            client.read(MMIO, BASE, 4)

        told = lib.SIO_LINE_MOVED | lib.SIO_LINE_OUTPUT_MOVED  # that a line moved, by a shard that has one
        taken = (granted | told if granted else 0) | lib.SIO_LINE_HOLD  # any shard may ask for the end
        assert client.view.lines == lines & taken
