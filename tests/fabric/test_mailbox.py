"""The synchronous path against a model, from sequence numbers near their wrap on, with several vCPUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio import FabricError, MmioRange, MutDeviceMmio, PioRange
from shardio._core import lib
from shardio.fabric import Outcome, Port
from tests.fabric.support import BASE, MMIO, PIO, PORT, Log, ViewLog, bench

WIDTHS = st.sampled_from([1, 2, 4, 8])
VALUES = st.integers(0, 2**64 - 1)
NEAR_WRAP = st.one_of(st.integers(0, 3), st.integers(2**48 - 6, 2**48 - 1), st.integers(2**62 - 3, 2**62 - 1))
ACCESSES = st.lists(
    st.tuples(st.integers(0, 2), st.booleans(), WIDTHS, st.integers(0, 31), VALUES), min_size=1, max_size=30
)


@given(NEAR_WRAP, ACCESSES, st.sampled_from([Log, ViewLog]))
def test_accesses_of_several_vcpus_are_answered_as_the_model_does(
    start: int, accesses: list[tuple[int, bool, int, int, int]], kind: type[Log]
) -> None:
    with bench(vcpus=3) as b:
        for vcpu in range(3):
            lib.sio_mailbox(b.fabric.view, 0, vcpu).state = start << 2
        device = kind([value for _, write, _, _, value in accesses if not write])
        owner = b.owner()
        if kind is ViewLog:
            device.values = [value & 0xFF for value in device.values]
        b.add(owner, device)
        clients = [b.client(vcpu) for vcpu in range(3)]
        answers: list[object] = []

        with b.serving(owner):
            for vcpu, write, size, offset, value in accesses:
                client = clients[vcpu]
                address = BASE + 8 * offset
                answers.append(
                    client.write(MMIO, address, size, value) if write else client.read(MMIO, address, size)
                )

        cut = 0xFF if kind is ViewLog else 2**64 - 1
        assert answers == [
            Outcome.ANSWERED if write else (Outcome.ANSWERED, value & cut & (1 << 8 * size) - 1)
            for _, write, size, _, value in accesses
        ]
        assert device.seen == [
            (8 * offset, size, value & (1 << 8 * size) - 1 if write else None)
            for _, write, size, offset, value in accesses
        ]


@given(st.sampled_from([1, 2, 4]), st.integers(1, 40), st.data())
def test_a_string_write_arrives_element_by_element(size: int, count: int, data: st.DataObject) -> None:
    payload = data.draw(st.binary(min_size=size * count, max_size=size * count))
    with bench() as b:
        device = Log()
        owner, _, client = b.connect(device, PioRange(PORT, 4))

        with b.serving(owner):
            outcome = client.write_string(PIO, PORT, size, payload)

        elements = [payload[i : i + size] for i in range(0, len(payload), size)]
        assert outcome is Outcome.ANSWERED
        assert device.seen == [(0, size, int.from_bytes(element, "little")) for element in elements]


@given(st.sampled_from([1, 2, 4]), st.lists(VALUES, min_size=1, max_size=40))
def test_a_string_read_gives_element_by_element(size: int, values: list[int]) -> None:
    with bench() as b:
        device = Log(values)
        owner, _, client = b.connect(device, PioRange(PORT, 4))

        with b.serving(owner):
            outcome, got = client.read_string(PIO, PORT, size, len(values))

        assert outcome is Outcome.ANSWERED
        assert got == b"".join((v & (1 << 8 * size) - 1).to_bytes(size, "little") for v in values)


@pytest.mark.parametrize("count", [1, 4096])
def test_the_longest_string_is_a_page(count: int) -> None:
    with bench() as b:
        device = Log()
        owner, _, client = b.connect(device, PioRange(PORT, 4))

        with b.serving(owner):
            outcome = client.write_string(PIO, PORT, 1, b"x" * count)

        assert outcome is Outcome.ANSWERED
        assert len(device.seen) == count


@pytest.mark.parametrize(("size", "count"), [(1, 4097), (8, 513), (3, 1), (1, 0)])
def test_a_longer_or_odd_string_read_is_refused(size: int, count: int) -> None:
    with bench() as b, pytest.raises(FabricError, match="no string"):
        b.client().read_string(PIO, PORT, size, count)


@pytest.mark.parametrize(("size", "length"), [(1, 4097), (8, 4104), (3, 3), (1, 0)])
def test_a_longer_or_odd_string_write_is_refused(size: int, length: int) -> None:
    with bench() as b, pytest.raises(FabricError, match="no string"):
        b.client().write_string(PIO, PORT, size, bytes(length))


@pytest.mark.parametrize(("space", "size"), [(0, 3), (1, 0), (1, 16), (2, 4)])
def test_a_read_of_no_known_width_or_space_is_refused(space: int, size: int) -> None:
    with bench() as b, pytest.raises(FabricError, match="no access"):
        b.client().read(space, BASE, size)


@pytest.mark.parametrize(("space", "size"), [(0, 3), (1, 0), (1, 16), (2, 4)])
def test_a_write_of_no_known_width_or_space_is_refused(space: int, size: int) -> None:
    with bench() as b, pytest.raises(FabricError, match="no access"):
        b.client().write(space, BASE, size, 0)


class Broken(MutDeviceMmio):
    """Raises on every access."""

    def read(self, offset: int, size: int) -> int:
        raise RuntimeError("broken for reads")

    def write(self, offset: int, size: int, value: int) -> None:
        raise RuntimeError("broken for writes")


@contextmanager
def failing() -> Iterator[tuple[Port, list[tuple[int, str, int]]]]:
    """A client of a device that raises, and what the owner tells of it: that once, and one refusal on each
    side.
    """
    with bench() as b:
        told: list[tuple[int, str, int]] = []
        owner = b.owner(on_error=lambda index, error, write: told.append((index, str(error), write)))
        route = b.add(owner, Broken())
        client = b.client()
        with b.serving(owner):
            yield client, told
        assert [index for index, _, _ in told] == [route.index]
        assert b.fabric.service(0, route.index).refused == 1
        assert b.fabric.waits(0, route.index).refused == 1


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_read_whose_handler_raises_gives_all_ones(size: int) -> None:
    with failing() as (client, told):
        answer = client.read(MMIO, BASE, size)

    assert answer == (Outcome.NOT_ANSWERED, (1 << 8 * size) - 1)
    assert [rest for _, *rest in told] == [["broken for reads", 0]]


def test_a_write_whose_handler_raises_is_dropped() -> None:
    with failing() as (client, told):
        outcome = client.write(MMIO, BASE, 4, 1)

    assert outcome is Outcome.NOT_ANSWERED
    assert [rest for _, *rest in told] == [["broken for writes", 1]]


@pytest.mark.parametrize("address", [BASE - 1, BASE + 0x100, 0, 2**64 - 1])
def test_an_unclaimed_read_gives_all_ones_and_is_counted(address: int) -> None:
    with bench() as b:
        owner = b.owner()
        b.add(owner, Log())

        answer = b.client().read(MMIO, address, 1)

        assert answer == (Outcome.NOT_ANSWERED, 0xFF)
        counters = b.fabric.vcpu_counters(0)
        assert (counters.unclaimed_reads, counters.unclaimed_writes, counters.crossing) == (1, 0, 0)


@pytest.mark.parametrize("address", [BASE - 1, BASE + 0x100, 0, 2**64 - 1])
def test_an_unclaimed_write_is_dropped_and_counted(address: int) -> None:
    with bench() as b:
        owner = b.owner()
        b.add(owner, Log())

        outcome = b.client().write(MMIO, address, 1, 0)

        assert outcome is Outcome.NOT_ANSWERED
        counters = b.fabric.vcpu_counters(0)
        assert (counters.unclaimed_reads, counters.unclaimed_writes, counters.crossing) == (0, 1, 0)


@pytest.mark.parametrize(("base", "address", "size"), [(BASE, BASE + 0xFD, 4), (2**64 - 0x100, 2**64 - 4, 8)])
def test_a_read_past_its_ranges_end_is_refused_and_counted_apart(base: int, address: int, size: int) -> None:
    with bench() as b:
        device, owner = Log(), b.owner()
        b.add(owner, device, MmioRange(base, 0x100))

        answer = b.client().read(MMIO, address, size)

        assert answer == (Outcome.NOT_ANSWERED, (1 << 8 * size) - 1)
        counters = b.fabric.vcpu_counters(0)
        assert (counters.unclaimed_reads, counters.crossing, device.seen) == (0, 1, [])


@pytest.mark.parametrize(("base", "address", "size"), [(BASE, BASE + 0xFD, 4), (2**64 - 0x100, 2**64 - 4, 8)])
def test_a_write_past_its_ranges_end_is_dropped_and_counted_apart(base: int, address: int, size: int) -> None:
    with bench() as b:
        device, owner = Log(), b.owner()
        b.add(owner, device, MmioRange(base, 0x100))

        outcome = b.client().write(MMIO, address, size, 0)

        assert outcome is Outcome.NOT_ANSWERED
        counters = b.fabric.vcpu_counters(0)
        assert (counters.unclaimed_writes, counters.crossing, device.seen) == (0, 1, [])


def test_an_aborted_read_gives_all_ones() -> None:
    with bench() as b:
        _, _, client = b.connect(Log())
        client.abort()

        assert client.read(MMIO, BASE, 2) == (Outcome.ABORTED, 0xFFFF)


def test_an_aborted_write_says_so() -> None:
    with bench() as b:
        _, _, client = b.connect(Log())
        client.abort()

        assert client.write(MMIO, BASE, 2, 0) is Outcome.ABORTED


def test_a_client_of_no_vcpu_is_refused() -> None:
    with bench(vcpus=2) as b, pytest.raises(FabricError, match="no vCPU 2"):
        b.client(2)
