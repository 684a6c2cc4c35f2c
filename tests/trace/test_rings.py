"""Trace rings through a fabric: what each side of an access writes there, and when."""

from __future__ import annotations

import os
import select
import time
from array import array
from collections.abc import Iterator

import pytest

from shardio import MmioRange
from shardio._core import ffi, lib
from shardio.fabric import Outcome, Owner, Port
from shardio.trace.rings import NO_RANGE, Clock, Raw, Rings, decode
from tests.fabric.support import BASE, MMIO, Bench, Log, bench

SPAN, POSTED = MmioRange(BASE, 0x100), MmioRange(BASE + 0x100, 0x100)
WRITE, IS_MMIO = lib.SIO_TRACE_WRITE, lib.SIO_TRACE_MMIO


class Rig:
    """vCPU 1 of two, one shard; a device at SPAN, and the same, posted to, at POSTED. Everything is traced.
    """

    def __init__(self, b: Bench) -> None:
        self.bench = b
        self.device = Log()
        self.owner: Owner = b.owner()
        self.index = b.add(self.owner, self.device, SPAN).index
        self.posted = b.add(self.owner, self.device, POSTED, posted=True).index
        self.port: Port = b.client(1)
        self.rings = Rings(b.fabric)
        self.rings.want(None)
        self.rings.switch(True, [self.port.view])

    def collect(self) -> list[Raw]:
        """What has been recorded since the last time."""
        return list(decode(self.rings.collect()))

    def both(self) -> tuple[Raw, Raw]:
        """The client's record, and the owner's, of one access."""
        found = {raw.kind: raw for raw in self.collect()}
        return found[lib.SIO_TRACE_ACCESS], found[lib.SIO_TRACE_SERVICE]


@pytest.fixture
def rig() -> Iterator[Rig]:
    """See `Rig`."""
    with bench(vcpus=2) as b:
        made = Rig(b)
        yield made
        vars(made).clear()  # pytest holds it until after the look at what a test leaves open


def test_both_sides_record_a_read_by_the_same_message(rig: Rig) -> None:
    rig.device.values = [0x1234]
    with rig.bench.serving(rig.owner):
        assert rig.port.read(MMIO, BASE + 8, 2) == (Outcome.ANSWERED, 0x1234)

    access, service = rig.both()
    assert (access.address, access.size, access.value, access.flags) == (BASE + 8, 2, 0x1234, IS_MMIO)
    assert (service.address, service.size, service.value, service.flags) == (BASE + 8, 2, 0x1234, IS_MMIO)
    assert access.vcpu == service.vcpu == 1
    assert access.range == service.range == rig.index
    assert (access.shard, access.message) == (service.shard, service.message) == (0, 1)
    assert access.begin < service.begin <= service.end
    assert service.begin < access.end


def test_both_sides_record_a_write_by_the_same_message(rig: Rig) -> None:
    with rig.bench.serving(rig.owner):
        assert rig.port.write(MMIO, BASE + 8, 2, 0x1234) == Outcome.ANSWERED

    access, service = rig.both()
    assert (access.address, access.size, access.value) == (BASE + 8, 2, 0x1234)
    assert (service.address, service.size, service.value) == (BASE + 8, 2, 0x1234)
    assert access.flags == service.flags == IS_MMIO | WRITE
    assert (access.shard, access.message) == (service.shard, service.message) == (0, 1)
    assert access.begin < service.begin <= service.end
    assert service.begin < access.end


def test_both_sides_record_each_posted_write_by_its_position(rig: Rig) -> None:
    for number in range(8):
        rig.port.write(MMIO, BASE + 0x100 + number, 1, number)
    posted = rig.collect()
    rig.owner.scan()
    served = rig.collect()

    assert [raw.kind for raw in posted if raw.kind != lib.SIO_TRACE_DOORBELL] == [lib.SIO_TRACE_ACCESS] * 8
    assert [(raw.message, raw.value, raw.address, raw.range) for raw in posted] == [
        (n, n, BASE + 0x100 + n, rig.posted) for n in range(8)
    ]
    assert [raw[3:9] for raw in served] == [raw[3:9] for raw in posted]
    assert {raw.flags for raw in posted + served} == {IS_MMIO | WRITE | lib.SIO_TRACE_POSTED}


@pytest.mark.parametrize("write", [False, True])
def test_strings_are_recorded_by_their_elements(rig: Rig, write: bool) -> None:
    with rig.bench.serving(rig.owner):
        call = rig.port.write_string if write else rig.port.read_string
        call(MMIO, BASE, 2, b"\1\0" * 5 if write else 5)  # type: ignore[arg-type]

    access, service = rig.both()
    assert (access.size, access.elements, access.value) == (2, 5, 0)
    assert (service.size, service.elements, service.value) == (2, 5, 0)
    assert access.flags == service.flags == IS_MMIO | lib.SIO_TRACE_STRING | (WRITE if write else 0)


@pytest.mark.parametrize(("address", "size", "outcome"), [
    (BASE + 0x8000, 4, lib.SIO_TRACE_UNCLAIMED),
    (BASE + 0x1FE, 4, lib.SIO_TRACE_CROSSING),
])  # fmt: skip
@pytest.mark.parametrize("write", [False, True])
def test_what_is_sent_to_nobody_is_recorded(
    rig: Rig, address: int, size: int, outcome: int, write: bool
) -> None:
    if write:
        rig.port.write(MMIO, address, size, 7)
    else:
        rig.port.read(MMIO, address, size)

    [access] = rig.collect()
    assert (access.outcome, access.range) == (outcome, NO_RANGE)
    assert access.value == (7 if write else 0xFFFF_FFFF)


@pytest.mark.parametrize("write", [False, True])
def test_a_handler_that_fails_is_recorded_as_refused(rig: Rig, write: bool) -> None:
    rig.bench.add(rig.owner, Failing(), MmioRange(0x9000, 8))
    with rig.bench.serving(rig.owner):
        rig.port.write(MMIO, 0x9000, 4, 7) if write else rig.port.read(MMIO, 0x9000, 4)

    access, service = rig.both()
    assert access.outcome == service.outcome == lib.SIO_TRACE_REFUSED


def test_what_a_wait_that_is_broken_off_waited_for_is_recorded(rig: Rig) -> None:
    rig.port.abort()
    assert rig.port.read(MMIO, BASE, 4)[0] is Outcome.ABORTED

    [access] = [raw for raw in rig.collect() if raw.kind == lib.SIO_TRACE_ACCESS]
    assert (access.outcome, access.range) == (lib.SIO_TRACE_ABORTED, rig.index)


def test_nothing_is_recorded_before_and_after(rig: Rig) -> None:
    rig.rings.switch(False, [rig.port.view])
    with rig.bench.serving(rig.owner):
        rig.port.write(MMIO, BASE, 4, 1)
        rig.port.read(MMIO, BASE, 4)

    assert rig.collect() == []


def test_ranges_that_nobody_wants_are_not_recorded(rig: Rig) -> None:
    rig.rings.want([rig.posted])
    with rig.bench.serving(rig.owner):
        rig.port.write(MMIO, BASE + 0x100, 4, 1)
        rig.port.read(MMIO, BASE, 4)
        rig.port.read(MMIO, BASE + 0x8000, 4)
    one = rig.collect()
    rig.rings.want([NO_RANGE])
    rig.port.read(MMIO, BASE + 0x8000, 4)

    assert {raw.range for raw in one if raw.kind != lib.SIO_TRACE_DOORBELL} == {rig.posted}
    assert [raw.range for raw in rig.collect()] == [NO_RANGE]


def test_a_doorbell_is_recorded_by_who_rings_it(rig: Rig) -> None:
    while rig.owner.turn(1_000_000).name != "ASLEEP":
        pass
    rig.port.write(MMIO, BASE + 0x100, 4, 1)

    [bell] = [raw for raw in rig.collect() if raw.kind == lib.SIO_TRACE_DOORBELL]
    assert (bell.vcpu, bell.shard) == (1, 0)


def test_interrupts_and_doorbells_of_devices_are_recorded_by_their_shard(rig: Rig) -> None:
    trace = rig.owner.tracing()
    trace.line(4, True)
    trace.line(4, False)
    rung_fd = os.eventfd(3, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    with select.epoll() as epoll:
        counts = array("Q", [0, 0, 0])
        rig.owner.add_bell(epoll.fileno(), rung_fd, lambda index: None, 2, counts, rig.index)
        rig.owner.turn(1_000_000, epoll.fileno())
    os.close(rung_fd)

    raised, lowered, rung = rig.collect()
    assert (raised.kind, raised.address, raised.value) == (lib.SIO_TRACE_RAISED, 4, 1)
    assert (lowered.kind, lowered.address, lowered.value) == (lib.SIO_TRACE_RAISED, 4, 0)
    assert (rung.kind, rung.range, rung.address, rung.value) == (lib.SIO_TRACE_RUNG, rig.index, 2, 3)


def test_an_owner_that_is_closed_records_nothing_and_does_no_harm(rig: Rig) -> None:
    trace = rig.owner.tracing()
    rig.owner.close()
    rig.rings.switch(False, [])
    trace.line(4, True)

    assert rig.collect() == []


def test_records_that_are_written_over_are_counted_as_lost(rig: Rig) -> None:
    for _ in range(lib.SIO_TRACE_SLOTS + 10):
        rig.port.read(MMIO, BASE + 0x8000, 4)

    assert len(rig.collect()) == lib.SIO_TRACE_SLOTS
    assert rig.rings.lost == [0, 10, 0]


def test_a_process_that_is_killed_leaves_a_ring_that_can_be_read(rig: Rig) -> None:
    pid = os.fork()
    if pid == 0:
        with Port(rig.bench.fabric, 0, {}) as port:
            port.view.tracing = 1
            while True:
                port.read(MMIO, BASE + 0x8000, 4)
    deadline = time.monotonic() + 20
    while rig.bench.fabric.view.trace_rings[0].head < 1000 and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    found = [*rig.collect(), *rig.collect()]
    head = rig.bench.fabric.view.trace_rings[0].head

    assert len(found) + rig.rings.lost[0] == head >= 1000
    assert {(raw.address, raw.outcome) for raw in found} == {(BASE + 0x8000, lib.SIO_TRACE_UNCLAIMED)}


def test_the_clock_is_that_of_the_host(rig: Rig) -> None:
    clock = Clock(rig.bench.fabric)
    before = time.monotonic_ns()
    ticks = lib.sio_ticks()
    after = time.monotonic_ns()

    assert before - 1_000_000 < clock.ns(ticks) < after + 1_000_000
    assert clock.ns(ticks + 1000) - clock.ns(ticks) == pytest.approx(
        lib.sio_ticks_to_ns(rig.bench.fabric.view, 1000), abs=1
    )


def test_a_record_is_read_as_the_core_lays_it_out() -> None:
    record = ffi.new("struct sio_trace_record *", [*range(1, 7), 7, 8, 9, 10, 11, 12, 13, 14])

    [raw] = decode(bytes(ffi.buffer(record)))
    assert list(raw) == list(range(1, 15))


class Failing:
    """Fails each access."""

    def read(self, offset: int, size: int) -> int:
        raise OSError

    def write(self, offset: int, size: int, value: int) -> None:
        raise OSError
