"""Frames in several receive buffers (VIRTIO_NET_F_MRG_RXBUF, virtio 1.2 section 5.1.6.4)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardio.devices.virtio import Net, VirtioMmio
from shardio.devices.virtio.link import SocketLink
from shardio.devices.virtio.net import F_MRG_RXBUF, HEADER_SIZE
from shardio.devices.virtio.queue import VirtQueue
from tests.devices.virtio.driver import ModelDriver
from tests.devices.virtio.guest import MmioGuest, run, started, until

RECEIVE = 0


@asynccontextmanager
async def receiver(**how: int) -> AsyncIterator[tuple[MmioGuest, socket.socket]]:
    """A running interface, and the far end of its cable."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with far:
        far.setblocking(False)
        async with started(VirtioMmio(Net(SocketLink(near))), MmioGuest, **how) as guest:
            yield guest, far


def frames(done: list[tuple[int, int, bytes]]) -> list[bytes]:
    """What a driver makes of the buffers that came back: as many to a frame as its header says."""
    found, rest = [], [content[:written] for _, written, content in done]
    while rest:
        # The header may lie in several buffers too, if they are as small as that.
        (count,) = struct.unpack_from("<10xH", b"".join(rest))
        assert 1 <= count <= len(rest), "a frame without all of its buffers"
        found.append(b"".join(rest[:count])[HEADER_SIZE:])
        rest = rest[count:]
    return found


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=6),
    buffers=st.lists(st.integers(1, 300), min_size=1, max_size=40),
)
def test_whatever_the_buffers_each_frame_arrives_whole_and_in_order(
    sizes: list[int], buffers: list[int]
) -> None:
    """The model: frames in order, each in the fewest buffers that hold it, until one finds too few."""
    sent = [bytes([number]) * size for number, size in enumerate(sizes, 1)]
    room, expected, used = list(buffers), [], 0
    for frame in sent:
        held = 0
        while room and held < HEADER_SIZE + len(frame):
            held += room.pop(0)
            used += 1
        if held < HEADER_SIZE + len(frame):
            break
        expected.append(frame)
        kept = used

    async def test() -> None:
        async with receiver(size=64) as (guest, far):
            for size in buffers:
                guest.queues[RECEIVE].add(writable=[size])
            guest.notify(RECEIVE)
            for frame in sent:
                far.send(frame)
            done = await guest.collected(RECEIVE, kept) if expected else []
            for _ in range(10):
                await asyncio.sleep(0)
            done += guest.queues[RECEIVE].collect()
            assert frames(done) == expected
            assert guest.device.virtio.dropped == 0  # type: ignore[attr-defined]

    kept = kept if expected else 0
    run(test)


def test_a_frame_waits_for_the_buffers_that_it_needs() -> None:
    async def test() -> None:
        async with receiver() as (guest, far):
            guest.queues[RECEIVE].add(writable=[100])
            guest.notify(RECEIVE)
            far.send(b"x" * 250)
            for _ in range(20):
                await asyncio.sleep(0)
            early = guest.queues[RECEIVE].collect()
            guest.queues[RECEIVE].add(writable=[100])
            guest.queues[RECEIVE].add(writable=[100])
            guest.notify(RECEIVE)
            done = await guest.collected(RECEIVE, 3)
            assert (early, frames(done)) == ([], [b"x" * 250])

    run(test)


def test_a_frame_that_all_buffers_of_the_queue_do_not_hold_is_dropped() -> None:
    async def test() -> None:
        async with receiver(size=4) as (guest, far):
            for _ in range(4):
                guest.queues[RECEIVE].add(writable=[50])
            guest.notify(RECEIVE)
            far.send(b"long" * 100)
            far.send(b"short")
            done = await guest.collected(RECEIVE, 1)
            assert frames(done) == [b"short"]
            assert guest.device.virtio.dropped == 1  # type: ignore[attr-defined]

    run(test)


def test_without_the_feature_a_frame_lies_in_one_buffer() -> None:
    async def test() -> None:
        async with receiver(without=F_MRG_RXBUF) as (guest, far):
            for size in (64, 400):
                guest.queues[RECEIVE].add(writable=[size])
            guest.notify(RECEIVE)
            far.send(b"x" * 250)
            far.send(b"y" * 20)
            done = await guest.collected(RECEIVE, 1)
            assert frames(done) == [b"y" * 20]
            assert guest.device.virtio.dropped == 1  # type: ignore[attr-defined]

    run(test)


def test_a_frame_that_waits_outlives_a_queue_that_is_taken_back() -> None:
    async def test() -> None:
        async with receiver() as (guest, far):
            guest.queues[RECEIVE].add(writable=[50])
            guest.notify(RECEIVE)
            far.send(b"x" * 100)
            await until(lambda: guest.device.virtio._frame is not None)  # type: ignore[attr-defined]
            guest.device.virtio.pause()
            guest.device.virtio.resume()
            guest.queues[RECEIVE].add(writable=[100])
            guest.notify(RECEIVE)
            done = await guest.collected(RECEIVE, 2)
            assert frames(done) == [b"x" * 100]

    run(test)


@pytest.mark.parametrize("event_idx", [False, True])
def test_buffers_of_a_frame_are_published_by_one_store_of_the_index(
    driver: ModelDriver, event_idx: bool
) -> None:
    """A driver that sees the first must find the others: section 5.1.6.4."""
    driver.event_idx = event_idx
    queue: VirtQueue = driver.queue()
    for _ in range(3):
        driver.add(writable=[8])
    chains = [queue.pop() for _ in range(3)]
    seen: list[int] = []

    class Watched(list):  # type: ignore[type-arg]
        def __iter__(self):  # type: ignore[no-untyped-def]
            for each in super().__iter__():
                seen.append(driver.u16(driver.used + 2))
                yield each

    queue.push_together(Watched((chain, 8) for chain in chains))

    assert seen == [0, 0, 0]
    assert len(driver.collect()) == 3
