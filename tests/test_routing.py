"""The address map: what a client is told, against a dictionary of every address; nothing before `publish`."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardio import DeviceOverlap, FabricError, MachineError, MmioRange, PioRange
from shardio._core import lib
from shardio.fabric import Fabric, Outcome
from shardio.routing import AddressMap, quiesce
from tests.fabric.support import BASE, MMIO, PIO, Log, bench

SPACE = 64
RANGES = st.lists(st.tuples(st.integers(0, SPACE - 1), st.integers(1, 12), st.booleans()), max_size=12)


@given(RANGES, st.booleans())
@settings(max_examples=60)
def test_each_address_leads_where_the_dictionary_says(
    ranges: list[tuple[int, int, bool]], high: bool
) -> None:
    origin = 2**64 - 2 * SPACE if high else BASE
    with bench(ranges=16) as b:
        owner = b.owner()
        model: dict[int, tuple[Log, int]] = {}
        for start, size, drop in ranges:
            span = MmioRange(origin + start, size)
            device = Log()
            try:
                route = b.add(owner, device, span)
            except DeviceOverlap:
                assert any(start + n in model for n in range(size))
                continue
            for n in range(size):
                model[start + n] = (device, n)
            if drop:
                b.map.remove(span)
                b.map.publish()
                b.map.release(route)
                for n in range(size):
                    del model[start + n]
        client = b.client()

        with b.serving(owner):
            outcomes = [client.read(MMIO, origin + n, 1)[0] for n in range(SPACE + 12)]

        assert outcomes == [
            Outcome.ANSWERED if n in model else Outcome.NOT_ANSWERED for n in range(SPACE + 12)
        ]
        asked = {(id(model[n][0]), model[n][1]) for n in model}
        devices = {id(device): device for device, _ in model.values()}
        assert asked == {(key, offset) for key, device in devices.items() for offset, _, _ in device.seen}


def test_nothing_is_visible_before_it_is_published() -> None:
    with bench() as b:
        b.map.add(MmioRange(BASE, 8), (0,))
        client = b.client()
        client.abort()

        before = client.read(MMIO, BASE, 1)[0]
        b.map.publish()
        after = client.read(MMIO, BASE, 1)[0]

        assert (before, after) == (Outcome.NOT_ANSWERED, Outcome.ABORTED)


def test_a_moved_range_answers_at_its_new_place_alone() -> None:
    with bench() as b:
        device, owner = Log(), b.owner()
        old = MmioRange(BASE, 8)
        route = b.add(owner, device, old)
        new = b.map.move(old, 0x9000)
        owner.set_handler(route.index, new, device)
        b.map.publish()
        client = b.client()

        with b.serving(owner):
            outcomes = [client.read(MMIO, at, 1)[0] for at in (BASE, 0x9000)]

        assert outcomes == [Outcome.NOT_ANSWERED, Outcome.ANSWERED]


def test_a_move_onto_another_range_is_refused_without_loss() -> None:
    with bench() as b:
        owner = b.owner()
        b.add(owner, Log(), MmioRange(BASE, 8))
        b.add(owner, Log(), MmioRange(0x9000, 8))

        with pytest.raises(DeviceOverlap):
            b.map.move(MmioRange(BASE, 8), 0x9004)

        assert [int(span.base) for span, _ in b.map] == [BASE, 0x9000]


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_a_quarantined_range_is_answered_by_nobody(write: bool) -> None:
    with bench() as b:
        device, owner = Log(), b.owner()
        route = b.add(owner, device)
        b.map.quarantine([route.index])
        b.map.publish()
        client = b.client()

        outcome = client.write(MMIO, BASE, 4, 1) if write else client.read(MMIO, BASE, 4)

        assert outcome == (Outcome.NOT_ANSWERED if write else (Outcome.NOT_ANSWERED, 0xFFFF_FFFF))
        assert b.fabric.waits(0, route.index).refused == 1


def test_a_replica_takes_over_what_a_dropped_shard_answered() -> None:
    with bench(shards=2) as b:
        owners = [b.owner(shard) for shard in range(2)]
        devices = [Log(), Log()]
        route = b.add(owners[0], devices[0], shards=(0, 1))
        owners[1].set_handler(route.index, MmioRange(BASE, 0x100), devices[1])
        client = b.client()

        with b.serving(*owners):
            first = client.read(MMIO, BASE, 1)[0]
            b.map.drop_shard(0)
            b.map.publish()
            second = client.read(MMIO, BASE, 1)[0]

        assert (first, second) == (Outcome.ANSWERED, Outcome.ANSWERED)
        assert [len(device.seen) for device in devices] == [1, 1]


def test_what_only_a_dropped_shard_answered_is_quarantined() -> None:
    with bench() as b:
        b.add(b.owner(), Log())
        b.map.drop_shard(0)
        b.map.publish()

        assert [route.quarantined for _, route in b.map] == [True]
        assert b.client().read(MMIO, BASE, 1) == (Outcome.NOT_ANSWERED, 0xFF)


def test_each_vcpu_asks_the_nearest_replica() -> None:
    with bench(vcpus=2, shards=2) as b:
        owners = [b.owner(shard) for shard in range(2)]
        devices = [Log(), Log()]
        route = b.add(owners[0], devices[0], shards=(0, 1))
        owners[1].set_handler(route.index, MmioRange(BASE, 0x100), devices[1])
        clients = [b.client(vcpu) for vcpu in range(2)]

        with b.serving(*owners):
            for client in clients:
                client.read(MMIO, BASE, 1)

        assert [len(device.seen) for device in devices] == [1, 1]


def test_an_index_is_used_again_only_after_its_release() -> None:
    with Fabric.create(vcpus=1, shards=1, ranges=2) as fabric:
        routes = AddressMap(fabric)
        first = routes.add(PioRange(0x10, 1), (0,))
        routes.add(PioRange(0x20, 1), (0,))
        routes.remove(PioRange(0x10, 1))
        with pytest.raises(FabricError, match="all 2 ranges are in use"):
            routes.add(PioRange(0x30, 1), (0,))

        routes.release(first)

        assert routes.add(PioRange(0x30, 1), (0,)).index == first.index


def test_a_refused_range_costs_no_index() -> None:
    with Fabric.create(vcpus=1, shards=1, ranges=2) as fabric:
        routes = AddressMap(fabric)
        routes.add(PioRange(0x10, 4), (0,))
        with pytest.raises(DeviceOverlap):
            routes.add(PioRange(0x12, 4), (0,))

        assert routes.add(PioRange(0x20, 1), (0,)).index == 1


def test_quiesce_returns_at_once_when_nobody_is_inside_an_access() -> None:
    with bench() as b:
        quiesce([b.client().view], 0.0)


def test_quiesce_waits_for_an_access_in_flight() -> None:
    with bench() as b:
        b.add(b.owner(), Log())
        client = b.client()
        thread = threading.Thread(target=client.read, args=(MMIO, BASE, 1))
        thread.start()
        while lib.sio_mailbox(b.fabric.view, 0, 0).state & 3 != lib.SIO_REQUEST:
            pass

        with pytest.raises(MachineError, match="in flight"):
            quiesce([client.view], 0.05)
        client.abort()
        thread.join()


def test_a_map_of_every_port_routes_each_range() -> None:
    with bench(ranges=1024) as b:
        for number in range(1024):
            b.map.add(PioRange(64 * number, 64), (0,))
        b.map.publish()
        client = b.client()
        client.abort()  # nobody owns them: what is claimed is given up, what is not would not be answered

        outcomes = {client.read(PIO, port, 1)[0] for port in range(0, 1 << 16, 61)}

        assert outcomes == {Outcome.ABORTED}
        assert b.fabric.vcpu_counters(0).unclaimed_reads == 0


def test_the_lowest_index_that_is_free_is_used_again() -> None:
    with bench(ranges=8) as b:
        routes = [b.map.add(PioRange(0x10 * n, 1), (0,)) for n in range(4)]
        for n in (3, 0, 2):
            b.map.remove(PioRange(0x10 * n, 1))
            b.map.release(routes[n])

        assert [b.map.add(PioRange(0x100 + n, 1), (0,)).index for n in range(4)] == [0, 2, 3, 4]


def test_each_publication_is_a_generation() -> None:
    with bench() as b:
        b.map.publish()
        b.map.publish()

        assert lib.sio_map_generation(b.fabric.view) == 2


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_a_range_beyond_four_gibibytes_answers_to_its_end(write: bool) -> None:
    """Its size has no place in 32 bits: the map holds it elsewhere."""
    base, size = 0x10_0000_0000, 0x1_8000_0000
    with bench() as b:
        device, owner = Log(), b.owner()
        b.add(owner, device, MmioRange(base, size))
        b.add(owner, Log(), MmioRange(base + size, 8))
        client = b.client()
        offsets = [0, 0xFFFF_FFFF, 0x1_0000_0000, size - 1]

        with b.serving(owner):
            for offset in offsets:
                client.write(MMIO, base + offset, 1, 1) if write else client.read(MMIO, base + offset, 1)

        assert [offset for offset, *_ in device.seen] == offsets


def test_65536_ranges_each_answer_at_their_addresses() -> None:
    """The most that a map holds, in three places: the first, the last, and some between."""
    count = lib.SIO_MAX_RANGES
    bases = [(0x1_0000, 0x4000_0000, 0x80_0000_0000)[3 * n // count] + n * 0x40 for n in range(count)]
    with bench(ranges=count) as b:
        device, owner = Log(), b.owner()
        for base in bases:
            b.map.add(MmioRange(base, 0x20), (0,))
        b.map.publish()
        chosen = [0, 1, 2, 3, 999, 32_768, 65_533, 65_534, 65_535]
        for index in chosen:
            owner.set_handler(index, MmioRange(bases[index], 0x20), device)
        client = b.client()

        with b.serving(owner):
            found = [client.mmio_device(bases[index] + 0x1F) for index in chosen]
            outcomes = [client.read(MMIO, bases[index] + 0x1F, 1)[0] for index in chosen]
            beyond = client.read(MMIO, bases[0] + 0x20, 1)[0]

        assert [place and place[1] for place in found] == chosen
        assert set(outcomes) == {Outcome.ANSWERED}
        assert beyond is Outcome.NOT_ANSWERED
        assert [b.fabric.service(0, index).reads for index in chosen] == [1] * len(chosen)
