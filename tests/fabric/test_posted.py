"""The posted ring against a queue, with cursors near their wraps, several vCPUs, and reads that flush."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shardio import MmioRange, MutDeviceMmio
from shardio._core import lib
from shardio.fabric import Outcome, Owner, Port
from tests.fabric.support import BASE, MMIO, Bench, Log, bench, fresh_fabric

SLOTS = 8
VCPUS = 2
LAPS = 1 << 16
POSTED = 0x4000
"""Base of the posted range; the range at BASE is synchronous, and both are the same device."""

STARTS = st.one_of(
    st.integers(0, 2 * SLOTS),
    st.integers(SLOTS * LAPS - 2 * SLOTS, SLOTS * LAPS + SLOTS),
    st.integers(2**48 - SLOTS, 2**48 + SLOTS),
    st.integers(2**64 - 3 * SLOTS, 2**64 - 1),
)
WIDTHS = st.sampled_from([1, 2, 4, 8])
VALUES = st.integers(0, 2**64 - 1)


def begin_at(b: Bench, shard: int, vcpu: int, position: int) -> None:
    """As if `position` posted writes had gone through this ring."""
    credit = lib.sio_credit(b.fabric.view, shard, vcpu)
    credit.credit = credit.taken = position
    ring, slots = lib.sio_ring(b.fabric.view, shard, vcpu), b.fabric.posted_slots
    for held in range(position - slots, position):
        ring[held % slots].lap = (held // slots + 1) % LAPS


def masked(size: int, value: int) -> int:
    """A value cut to a width."""
    return value & (1 << 8 * size) - 1


class Ring(RuleBasedStateMachine):
    """Posts, drains, and reads that flush; a ring is a queue of at most its slots."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(fresh_fabric(VCPUS, 1, 8, SLOTS))
        self.device = Log()
        self.queues: list[deque[tuple[int, int, int]]] = [deque() for _ in range(VCPUS)]
        self.expected: list[tuple[int, int, int | None]] = []
        self.room = [SLOTS] * VCPUS
        """What the client knows: credit comes back at the end of a drain."""

    @initialize(starts=st.tuples(STARTS, STARTS))
    def begin(self, starts: tuple[int, int]) -> None:
        for vcpu, start in enumerate(starts):
            begin_at(self.bench, 0, vcpu, start)
        self.owner: Owner = self.bench.owner()
        self.bench.add(self.owner, self.device)
        self.bench.add(self.owner, self.device, MmioRange(POSTED, 0x100), posted=True)
        self.clients: list[Port] = [self.bench.client(vcpu) for vcpu in range(VCPUS)]

    @precondition(lambda self: any(len(queue) < SLOTS for queue in self.queues))
    @rule(vcpu=st.integers(0, VCPUS - 1), size=WIDTHS, offset=st.integers(0, 31), value=VALUES)
    def post(self, vcpu: int, size: int, offset: int, value: int) -> None:
        chosen = vcpu if len(self.queues[vcpu]) < SLOTS else 1 - vcpu

        outcome = self.clients[chosen].write(MMIO, POSTED + 8 * offset, size, value)

        assert outcome is Outcome.ANSWERED
        self.queues[chosen].append((8 * offset, size, masked(size, value)))

    @rule()
    def drain(self) -> None:
        assert self.owner.scan() == sum(map(len, self.queues))
        for queue in self.queues:
            self.expected += queue
            queue.clear()

    @rule(vcpu=st.integers(0, VCPUS - 1), size=WIDTHS)
    def read(self, vcpu: int, size: int) -> None:
        with self.bench.serving(self.owner):
            answer = self.clients[vcpu].read(MMIO, BASE, size)
        seen = self.device.seen

        assert answer == (Outcome.ANSWERED, masked(size, seen.index((0, size, None), len(self.expected)) + 1))
        read_at = seen.index((0, size, None), len(self.expected))
        mine, other = self.queues[vcpu], self.queues[1 - vcpu]
        before = iter(seen[len(self.expected) : read_at])
        assert all(access in before for access in mine), "what was posted before the read comes before it"
        assert len(seen) == len(self.expected) + len(mine) + len(other) + 1
        self.expected = list(seen)
        mine.clear()
        other.clear()

    @rule(vcpu=st.integers(0, VCPUS - 1), value=VALUES)
    def write_synchronously(self, vcpu: int, value: int) -> None:
        with self.bench.serving(self.owner):
            outcome = self.clients[vcpu].write(MMIO, BASE + 8, 8, value)
        seen = self.device.seen

        assert outcome is Outcome.ANSWERED
        assert len(seen) == len(self.expected) + sum(map(len, self.queues)) + 1
        self.expected = list(seen)
        for queue in self.queues:
            queue.clear()

    @invariant()
    def the_device_has_seen_what_was_drained(self) -> None:
        assert self.device.seen == self.expected

    def teardown(self) -> None:
        self.bench.stack.close()


TestRing = Ring.TestCase
TestRing.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


@given(STARTS, st.lists(st.tuples(WIDTHS, st.integers(0, 31), VALUES), min_size=1, max_size=100))
@settings(max_examples=50)
def test_posted_writes_arrive_once_and_in_order_however_many_laps(
    start: int, writes: list[tuple[int, int, int]]
) -> None:
    with bench(posted_slots=SLOTS) as b:
        begin_at(b, 0, 0, start)
        device = Log()
        owner, _, client = b.connect(device, MmioRange(POSTED, 0x100), posted=True)

        with b.serving(owner):
            outcomes = {client.write(MMIO, POSTED + 8 * offset, size, v) for size, offset, v in writes}
            client.read(MMIO, POSTED, 1)

        assert outcomes == {Outcome.ANSWERED}
        assert device.seen == [(8 * o, s, masked(s, v)) for s, o, v in writes] + [(0, 1, None)]
        assert b.fabric.vcpu_counters(0).malformed == 0
        assert b.fabric.vcpu_counters(0).lost_wakeups == 0


@given(STARTS, st.lists(st.tuples(st.booleans(), VALUES), min_size=1, max_size=60))
@settings(max_examples=50)
def test_a_vcpus_posted_and_synchronous_writes_keep_their_order(
    start: int, writes: list[tuple[bool, int]]
) -> None:
    with bench(posted_slots=SLOTS) as b:
        begin_at(b, 0, 0, start)
        device, owner = Log(), b.owner()
        b.add(owner, device)
        b.add(owner, device, MmioRange(POSTED, 0x100), posted=True)
        client = b.client()

        with b.serving(owner):
            for posted, value in writes:
                client.write(MMIO, POSTED if posted else BASE, 8, value)
            client.read(MMIO, BASE, 1)

        assert [value for _, _, value in device.seen[:-1]] == [value for _, value in writes]


def test_a_string_write_to_a_posted_range_is_synchronous_and_in_order() -> None:
    with bench(posted_slots=SLOTS) as b:
        device = Log()
        owner, _, client = b.connect(device, MmioRange(POSTED, 0x100), posted=True)

        with b.serving(owner):
            client.write(MMIO, POSTED, 1, 1)
            outcome = client.write_string(MMIO, POSTED, 1, b"\x02\x03")
            client.write(MMIO, POSTED, 1, 4)
            client.read(MMIO, POSTED, 1)

        assert outcome is Outcome.ANSWERED
        assert [value for _, _, value in device.seen] == [1, 2, 3, 4, None]


class Raising(MutDeviceMmio):
    """Raises for odd values."""

    def __init__(self) -> None:
        self.kept: list[int] = []

    def read(self, offset: int, size: int) -> int:
        return len(self.kept)

    def write(self, offset: int, size: int, value: int) -> None:
        if value & 1:
            raise ValueError(value)
        self.kept.append(value)


def test_a_posted_write_that_raises_is_dropped_alone() -> None:
    with bench(posted_slots=SLOTS) as b:
        failures: list[int] = []
        device, owner = (
            Raising(),
            b.owner(on_error=lambda index, error, write: failures.append(error.args[0])),
        )
        route = b.add(owner, device, MmioRange(POSTED, 0x100), posted=True)
        client = b.client()

        for value in range(6):
            client.write(MMIO, POSTED, 4, value)
        owner.scan()

        assert (device.kept, failures) == ([0, 2, 4], [1])  # told once for its place
        assert b.fabric.service(0, route.index).refused == 3


@pytest.mark.parametrize("position", [0, SLOTS * LAPS - 4, 2**64 - 4])
def test_a_full_ring_waits_for_room(position: int) -> None:
    with bench(posted_slots=SLOTS) as b:
        begin_at(b, 0, 0, position)
        device = Log()
        owner, _, client = b.connect(device, MmioRange(POSTED, 0x100), posted=True)
        for value in range(SLOTS):
            client.write(MMIO, POSTED, 4, value)
        client.abort()

        refused = client.write(MMIO, POSTED, 4, SLOTS)
        owner.scan()
        accepted = client.write(MMIO, POSTED, 4, SLOTS + 1)
        owner.scan()

        assert (refused, accepted) == (Outcome.ABORTED, Outcome.ANSWERED)
        assert [value for _, _, value in device.seen] == [*range(SLOTS), SLOTS + 1]


def test_a_range_is_dropped_only_when_what_was_posted_to_it_is_served() -> None:
    with bench(posted_slots=SLOTS) as b:
        device = Log()
        owner, route, client = b.connect(device, MmioRange(POSTED, 0x100), posted=True)
        for value in range(5):
            client.write(MMIO, POSTED, 4, value)

        owner.clear_handler(route.index)

        assert [value for _, _, value in device.seen] == [0, 1, 2, 3, 4]


def test_a_successor_goes_on_where_its_predecessor_stopped() -> None:
    with bench(posted_slots=SLOTS) as b:
        first, second = Log(), Log()
        predecessor = b.owner()
        span = MmioRange(POSTED, 0x100)
        route = b.add(predecessor, first, span, posted=True)
        client = b.client()
        client.write(MMIO, POSTED, 4, 1)
        predecessor.scan()
        client.write(MMIO, POSTED, 4, 2)
        predecessor.close()

        successor = b.owner()
        successor.set_handler(route.index, span, second, posted=True)
        successor.scan()

        assert [value for _, _, value in first.seen] == [1]
        assert [value for _, _, value in second.seen] == [2]
