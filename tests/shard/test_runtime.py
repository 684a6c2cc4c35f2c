"""The event loop of a shard: what a doorbell of a device has it do."""

from __future__ import annotations

import asyncio
import logging
import os
from array import array
from collections.abc import Iterator
from contextlib import closing

import pytest

from shardio.interrupt.doorbell import DoorbellLoop
from shardio.shard.runtime import Loop, Runtime
from tests.fabric.support import BASE, MMIO, PATIENCE_S, Bench, Log, bench


class Rig:
    """A loop that serves a device of one range, and an eventfd that is its doorbell 0."""

    def __init__(self, b: Bench, loop: Loop) -> None:
        self.loop, self.reports = loop, list[str]()
        report = self.reports
        self.runtime = Runtime(loop, b.fabric, 0, b.doorbells[0], lambda name, _: report.append(name))
        self.index = b.add(self.runtime.owner, Log()).index
        self.runtime.names[self.index] = "bell"
        self.client = b.client()
        self.rings = array("Q", [0])
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        b.stack.callback(os.close, self.fd)
        b.stack.callback(self.runtime.close)
        loop.call_later(PATIENCE_S, loop.stop)
        self.runtime.serve()

    def ring(self) -> None:
        os.eventfd_write(self.fd, 1)


@pytest.fixture
def rig() -> Iterator[Rig]:
    """See `Rig`."""
    with closing(Loop()) as loop, bench() as b:
        made = Rig(b, loop)
        yield made
        vars(made).clear()  # pytest holds it until after the look at what a test leaves open


def test_the_loop_delivers_doorbells_itself(rig: Rig) -> None:
    assert isinstance(rig.loop, DoorbellLoop)
    assert not isinstance(asyncio.AbstractEventLoop(), DoorbellLoop)


def test_what_a_ring_schedules_runs_at_once(rig: Rig) -> None:
    """It is called from within the selector: asyncio has to look at what is due afterwards."""
    order = []

    def ring(index: int) -> None:
        rig.loop.call_soon(order.append, "soon")
        rig.loop.call_later(0, rig.loop.stop)
        order.append(f"rung {index}")

    rig.loop.add_doorbell(rig.fd, ring, 0, rig.rings)
    rig.loop.call_soon(rig.ring)
    rig.loop.run_forever()

    assert order == ["rung 0", "soon"]
    assert rig.rings[0] == 1


def test_a_removed_doorbell_is_an_eventfd_like_others(rig: Rig) -> None:
    rung = list[int]()
    rig.loop.add_doorbell(rig.fd, rung.append, 0, rig.rings)
    rig.loop.remove_doorbell(rig.fd)
    rig.loop.add_reader(rig.fd, rig.loop.stop)
    rig.loop.call_soon(rig.ring)
    rig.loop.run_forever()

    assert (rung, os.eventfd_read(rig.fd)) == ([], 1)
    rig.loop.remove_reader(rig.fd)


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_an_access_is_served_from_the_loops_sleep(rig: Rig, write: bool) -> None:
    async def access() -> object:
        client = rig.client
        call = (client.write, MMIO, BASE, 4, 7) if write else (client.read, MMIO, BASE, 4)
        return await asyncio.to_thread(*call)

    fabric = rig.runtime.owner.fabric
    while fabric.shard_counters(0).sleeps == 0:
        rig.loop.run_until_complete(asyncio.sleep(0))
    rig.loop.run_until_complete(access())

    assert fabric.shard_counters(0).lost_wakeups == 0


def test_a_device_that_raises_when_it_is_rung_is_named_once(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio would log it each time that a guest rings."""
    times = iter((False, False, True))

    def ring(index: int) -> None:
        if next(times):
            rig.loop.stop()
        else:
            rig.loop.call_soon(rig.ring)
        raise ValueError("no")

    rig.loop.add_doorbell(rig.fd, ring, 0, rig.rings, rig.index)
    rig.loop.call_soon(rig.ring)
    with caplog.at_level(logging.ERROR, "shardio.shard"):
        rig.loop.run_forever()

    assert [record.getMessage() for record in caplog.records] == [
        "device bell failed a doorbell (logged once for this place)"
    ]
    assert rig.reports == ["bell"]
