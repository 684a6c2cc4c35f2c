"""Where the last access was that nobody answered: each kind apart, with its width and direction."""

from __future__ import annotations

import pytest

from shardio import MmioRange, MutDeviceMmio, PioRange, Space
from shardio._core import ffi, lib
from shardio.fabric import LastAccess
from shardio.fabric.statistics import newest
from tests.fabric.support import BASE, MMIO, PIO, PORT, Bench, bench


class Broken(MutDeviceMmio):
    """Raises on every access."""

    def read(self, offset: int, size: int) -> int:
        raise RuntimeError("broken")

    def write(self, offset: int, size: int, value: int) -> None:
        raise RuntimeError("broken")


def access(b: Bench, space: int, address: int, size: int, *, write: bool) -> None:
    client = b.client()
    (client.write if write else client.read)(space, address, size, *[0] * write)


def told(last: LastAccess | None) -> str:
    return str(last)


WAYS = pytest.mark.parametrize(("write", "way"), [(False, "read"), (True, "write")])


@WAYS
@pytest.mark.parametrize(("space", "label"), [(PIO, "pio"), (MMIO, "mmio")])
def test_an_unclaimed_access_is_noted(write: bool, way: str, space: int, label: str) -> None:
    with bench() as b:
        access(b, space, 0x1F0, 2, write=write)

        counters = b.fabric.vcpu_counters(0)

    assert told(counters.last_unclaimed) == f"{way} of 2 bytes at {label} 0x1f0"
    assert counters.last_crossing is None


@WAYS
def test_an_access_past_its_ranges_end_is_noted_apart(write: bool, way: str) -> None:
    with bench() as b:
        b.add(b.owner(), Broken(), PioRange(PORT, 2))
        access(b, PIO, PORT + 1, 4, write=write)

        counters = b.fabric.vcpu_counters(0)

    assert told(counters.last_crossing) == f"{way} of 4 bytes at pio 0x81"
    assert counters.last_unclaimed is None


@WAYS
def test_a_refused_access_is_noted_by_its_client(write: bool, way: str) -> None:
    with bench() as b:
        owner = b.owner()
        route = b.add(owner, Broken(), MmioRange(BASE, 0x100))
        with b.serving(owner):
            access(b, MMIO, BASE + 0x10, 8, write=write)

        assert told(b.fabric.waits(0, route.index).last_refused) == f"{way} of 8 bytes at mmio 0x1010"


@WAYS
def test_an_access_to_a_quarantined_range_is_noted(write: bool, way: str) -> None:
    with bench() as b:
        route = b.add(b.owner(), Broken())
        b.map.quarantine([route.index])
        b.map.publish()
        access(b, MMIO, BASE + 4, 1, write=write)

        assert told(b.fabric.waits(0, route.index).last_refused) == f"{way} of 1 byte at mmio 0x1004"


def test_a_refused_posted_write_is_noted_by_its_owner() -> None:
    with bench() as b:
        owner, route, client = b.connect(Broken(), posted=True)
        client.write(MMIO, BASE + 0x20, 4, 7)
        owner.flush()

        assert told(b.fabric.service(0, route.index).last_refused) == "write of 4 bytes at mmio 0x1020"


def test_the_later_of_two_is_the_last() -> None:
    first, then = (LastAccess(Space.PIO, ticks, 1, False, ticks) for ticks in (1, 2))

    assert [newest(first, then), newest(then, first), newest(None, first)] == [then, then, first]
    assert newest(None, None) is None


@WAYS
def test_an_access_that_is_resumed_and_then_refused_is_counted_and_noted(write: bool, way: str) -> None:
    """Its first sender died before the answer; whoever resumes it is who counts that it was refused."""
    with bench() as b:
        route = b.add(b.owner(), Broken())
        client = b.client()
        client.abort()
        data = ffi.new("uint64_t *")
        access = (client.view, MMIO, BASE + 8, 2, int(write), data)
        first = lib.sio_client_access(*access)
        lib.sio_recover_refuse(b.fabric.view, 0, 0, lib.sio_mailbox(b.fabric.view, 0, 0).state)
        then = lib.sio_client_access(*access)

        assert (first, then) == (lib.SIO_ABORTED, lib.SIO_NOT_ANSWERED)
        assert told(b.fabric.waits(0, route.index).last_refused) == f"{way} of 2 bytes at mmio 0x1008"
        assert b.fabric.waits(0, route.index).refused == 1
