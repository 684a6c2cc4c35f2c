"""The posted path at its edges: fairness, doorbells, forgotten routes, aborted waits, what is timed."""

from __future__ import annotations

import os
import threading
import time

import pytest

from shardio import MmioRange, MutDeviceMmio, PioRange
from shardio._core import ffi, lib
from shardio.errors import MachineError
from shardio.fabric import Outcome, Turn
from shardio.routing import quiesce
from tests.fabric.support import MMIO, PIO, Bench, Log, bench

POSTED = 0x4000
OTHER = 0x8000
TURN_NS = 200_000


def rung(b: Bench, shard: int = 0) -> int:
    """How often the shard's doorbell was rung since the last look."""
    try:
        return os.eventfd_read(b.doorbells[shard])
    except BlockingIOError:
        return 0


class Slow(MutDeviceMmio):
    """Each write takes 20 us; counts them by offset."""

    def __init__(self) -> None:
        self.served: dict[int, int] = {}

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        end = time.perf_counter_ns() + 20_000
        while time.perf_counter_ns() < end:
            pass
        self.served[offset] = self.served.get(offset, 0) + 1


@pytest.mark.parametrize("vcpus", [2, 3, 8, 16])
def test_no_ring_is_so_hot_that_another_is_never_drained(vcpus: int) -> None:
    with bench(vcpus=vcpus, posted_slots=64) as b:
        device, owner = Slow(), b.owner()
        b.add(owner, device, MmioRange(POSTED, 0x100), posted=True)
        clients = [b.client(vcpu) for vcpu in range(vcpus)]
        posted = [0] * vcpus

        for _ in range(4 * vcpus):
            for vcpu, client in enumerate(clients):  # every ring full
                while posted[vcpu] - device.served.get(4 * vcpu, 0) < 64:
                    client.write(MMIO, POSTED + 4 * vcpu, 4, 1)
                    posted[vcpu] += 1
            owner.turn(TURN_NS)

        assert sorted(device.served) == [4 * vcpu for vcpu in range(vcpus)]


def test_each_range_has_its_share_of_the_writes_that_are_timed() -> None:
    ranges = 4
    with bench(posted_slots=64) as b:
        owner = b.owner()
        routes = [
            b.add(owner, Log(), MmioRange(POSTED + 0x100 * number, 0x100), posted=True)
            for number in range(ranges)
        ]
        client = b.client()

        for _ in range(1600):
            for number in range(ranges):
                client.write(MMIO, POSTED + 0x100 * number, 4, 1)
            owner.scan()
        samples = [b.fabric.service(0, route.index).samples for route in routes]

        assert min(samples) > 64 + 10, samples


def test_a_client_without_room_is_woken_by_a_successor() -> None:
    with bench(posted_slots=8) as b:
        route = b.map.add(MmioRange(POSTED, 0x100), (0,), posted=True)
        b.map.publish()
        client = b.client()
        for value in range(8):
            client.write(MMIO, POSTED, 4, value)
        waiting = threading.Thread(target=client.write, args=(MMIO, POSTED, 4, 8))
        waiting.start()
        while b.fabric.vcpu_counters(0).sleeps == 0:
            os.sched_yield()
        lib.sio_credit(b.fabric.view, 0, 0).taken = 3  # a predecessor took them and died

        successor = b.owner()  # which is to make its devices yet
        waiting.join()

        assert successor.shard == 0
        assert route.posted
        assert b.fabric.vcpu_counters(0).lost_wakeups == 0


@pytest.mark.parametrize("opened", [False, True], ids=["the first", "one more"])
def test_a_posted_write_rings_the_owner_that_sleeps(opened: bool) -> None:
    with bench() as b:
        owner, _, client = b.connect(Log(), MmioRange(POSTED, 0x100), posted=True)
        if opened:
            client.write(MMIO, POSTED, 4, 1)
        while owner.turn(TURN_NS) is not Turn.ASLEEP:
            pass
        rung(b)

        client.write(MMIO, POSTED, 4, 2)
        rings = rung(b)
        client.write(MMIO, POSTED, 4, 3)

        assert (rings, rung(b)) == (1, 0), "one ring a need_wakeup"


def test_whoever_takes_a_posted_write_up_rings_for_it() -> None:
    with bench() as b:
        device = Log()
        owner, _, client = b.connect(device, MmioRange(POSTED, 0x100), posted=True)
        client.write(MMIO, POSTED, 4, 1)
        while owner.turn(TURN_NS) is not Turn.ASLEEP:
            pass
        rung(b)
        value = ffi.new("uint64_t *", 2)
        client.view.doorbell[0] = -1  # a worker that dies before it rings
        lib.sio_client_access(client.view, MMIO, POSTED, 4, 1, value)
        assert rung(b) == 0
        client.view.doorbell[0] = b.doorbells[0]

        outcome = lib.sio_client_access(client.view, MMIO, POSTED, 4, 1, value)
        lib.sio_client_complete(client.view)

        assert (outcome, rung(b)) == (lib.SIO_ANSWERED, 1)
        owner.scan()
        assert [seen[2] for seen in device.seen] == [1, 2]


def test_a_range_that_is_gone_is_posted_to_no_more_by_any_address() -> None:
    with bench() as b:
        device, owner = Log(), b.owner()
        span = PioRange(0, 0x100)
        b.add(owner, device, span, posted=True)
        client = b.client()
        client.write(PIO, 4, 1, 1)
        owner.scan()
        b.map.remove(span)
        b.map.publish()
        client.read(PIO, 0x300, 1)  # knows the new map from now on

        outcomes = {client.write(PIO, port, 1, 2) for port in range(0x102)}
        owner.scan()

        assert outcomes == {Outcome.NOT_ANSWERED}
        assert [seen[2] for seen in device.seen] == [1]


def test_a_port_is_no_address() -> None:
    with bench() as b:
        device, owner = Log(), b.owner()
        b.add(owner, device, PioRange(0x80, 8), posted=True)
        client = b.client()
        client.write(PIO, 0x80, 1, 1)

        assert client.write(MMIO, 0x80, 1, 2) is Outcome.NOT_ANSWERED
        assert client.write(PIO, 0x80, 1, 3) is Outcome.ANSWERED
        owner.scan()
        assert [seen[2] for seen in device.seen] == [1, 3]


def test_a_quarantined_range_is_posted_to_no_more() -> None:
    with bench() as b:
        device = Log()
        owner, route, client = b.connect(device, MmioRange(POSTED, 0x100), posted=True)
        client.write(MMIO, POSTED, 4, 1)
        b.map.quarantine([route.index])
        b.map.publish()

        outcomes = [client.write(MMIO, POSTED, 4, value) for value in (2, 3)]
        owner.scan()

        assert outcomes == [Outcome.NOT_ANSWERED] * 2
        assert [seen[2] for seen in device.seen] == [1]


def test_an_aborted_wait_for_room_leaves_the_other_ring_as_it_was() -> None:
    with bench(shards=2, posted_slots=4) as b:
        near, far = Log(), Log()
        first, second = b.owner(0), b.owner(1)
        b.add(first, near, MmioRange(POSTED, 0x100), posted=True)
        b.add(second, far, MmioRange(OTHER, 0x100), posted=True)
        client = b.client()
        for value in range(4):
            client.write(MMIO, OTHER, 4, value)
        client.write(MMIO, POSTED, 4, 10)
        client.abort()

        refused = client.write(MMIO, OTHER, 4, 4)
        counts = [lib.sio_client_posted(client.view, shard) for shard in range(2)]
        accepted = [client.write(MMIO, POSTED, 4, value) for value in (11, 12)]
        second.scan()
        accepted.append(client.write(MMIO, OTHER, 4, 5))
        first.scan()
        second.scan()

        assert (refused, counts) == (Outcome.ABORTED, [1, 4])
        assert accepted == [Outcome.ANSWERED] * 3
        assert [seen[2] for seen in near.seen] == [10, 11, 12]
        assert [seen[2] for seen in far.seen] == [0, 1, 2, 3, 5]


def test_a_range_that_goes_to_another_shard_while_it_is_posted_to() -> None:
    with bench(shards=2, posted_slots=8) as b:
        logs, span = (Log(), Log()), MmioRange(POSTED, 0x100)
        owners = [b.owner(shard) for shard in range(2)]
        client = b.client()
        sent: tuple[list[int], list[int]] = ([], [])
        route = b.add(owners[0], logs[0], span, posted=True)

        for value in range(60):
            shard = value // 3 % 2
            if value % 3 == 0:
                b.map.remove(span)
                b.map.release(route)
                route = b.add(owners[shard], logs[shard], span, posted=True)
            assert client.write(MMIO, POSTED, 4, value) is Outcome.ANSWERED
            sent[shard].append(value)
            if value % 5 == 0:
                for owner in owners:
                    owner.scan()
        for owner in owners:
            owner.scan()

        assert [[seen[2] for seen in log.seen] for log in logs] == list(sent)
        assert [lib.sio_client_posted(client.view, shard) for shard in range(2)] == list(map(len, sent))


def test_quiesce_follows_an_access_that_gets_its_name_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is published an access has no name of its own: the next name may be the same access's."""
    with bench() as b:
        client = b.client().view
        client.pending = lib.SIO_PENDING_NONE << 62  # routed by the old map, nothing published yet

        def publish(_seconds: float) -> None:
            client.pending = lib.SIO_PENDING_SYNC << 62 | 1  # by the old map; nobody answers

        monkeypatch.setattr("shardio.routing.time.sleep", publish)

        with pytest.raises(MachineError, match="in flight"):
            quiesce([client], 0.05)
