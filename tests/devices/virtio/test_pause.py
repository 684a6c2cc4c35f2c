"""Devices that may not touch guest RAM for a while (bus mastering off), and queues that are taken back."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shardio.devices.virtio import Net, VirtioMmio, VirtioMmioBlock, VirtioMmioConsole, mmio
from shardio.devices.virtio.link import SocketLink
from shardio.devices.virtio.net import HEADER_SIZE
from tests.devices.virtio.block_guest import IN
from tests.devices.virtio.driver import ModelDriver
from tests.devices.virtio.guest import MmioGuest, run, started

RECEIVE, TRANSMIT = 0, 1
HEADER = bytes(HEADER_SIZE)


@asynccontextmanager
async def cable() -> AsyncIterator[tuple[MmioGuest, socket.socket]]:
    """A running network device and the far end of its cable."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with far:
        far.setblocking(False)
        async with started(VirtioMmio(Net(SocketLink(near))), MmioGuest) as guest:
            yield guest, far


async def turns(count: int = 20) -> None:
    """Let the loop do whatever it has to do."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_frame_that_comes_while_paused_waits_in_the_link() -> None:
    async def test() -> None:
        async with cable() as (guest, far):
            guest.queues[RECEIVE].add(writable=[256])
            guest.notify(RECEIVE)
            guest.device.virtio.pause()
            far.send(b"frame" * 12)
            guest.notify(RECEIVE)
            await turns()
            early = guest.queues[RECEIVE].collect()
            guest.device.virtio.resume()
            done = await guest.collected(RECEIVE, 1)
            assert (early, len(done)) == ([], 1)

    run(test)


def test_a_frame_that_is_sent_while_paused_waits_in_the_queue() -> None:
    async def test() -> None:
        async with cable() as (guest, far):
            guest.device.virtio.pause()
            guest.queues[TRANSMIT].add([HEADER, b"frame" * 12])
            guest.notify(TRANSMIT)
            await turns()
            with pytest.raises(BlockingIOError):
                far.recv(100)
            guest.device.virtio.resume()
            await guest.collected(TRANSMIT, 1)
            assert far.recv(100) == b"frame" * 12

    run(test)


def test_a_console_is_silent_while_paused(tmp_path: Path) -> None:
    async def test() -> None:
        (tmp_path / "in").write_bytes(b"typed")
        options = {"source": f"file:{tmp_path / 'in'}", "output": f"file:{tmp_path / 'out'}"}
        async with started(VirtioMmioConsole(**options), MmioGuest) as guest:  # type: ignore[arg-type]
            guest.device.virtio.pause()
            guest.queues[RECEIVE].add(writable=[16])
            guest.queues[TRANSMIT].add([b"said"])
            guest.notify(RECEIVE)
            guest.notify(TRANSMIT)
            await turns()
            early = [guest.queues[index].collect() for index in (RECEIVE, TRANSMIT)]
            guest.device.virtio.resume()
            [(_, written, content)] = await guest.collected(RECEIVE, 1)
            await guest.collected(TRANSMIT, 1)
            assert early == [[], []]
            assert content[:written] == b"typed"
        assert (tmp_path / "out").read_bytes() == b"said"

    run(test)


def test_a_request_that_is_done_while_paused_is_given_back_afterwards(
    image: Path, nothing_at_hand: None
) -> None:
    async def test() -> None:
        async with started(VirtioMmioBlock(str(image)), MmioGuest) as guest:
            guest.queues[0].add([struct.pack("<IIQ", IN, 0, 0)], [512, 1])
            guest.notify(0)
            guest.device.virtio.pause()  # waits for the thread
            await turns()
            early = guest.queues[0].collect()
            guest.device.virtio.resume()
            [(_, _, content)] = await guest.collected(0, 1)
            assert early == []
            assert content == image.read_bytes()[:512] + b"\0"

    run(test)


def test_a_request_of_a_queue_that_was_taken_back_never_comes_back(
    image: Path, nothing_at_hand: None
) -> None:
    async def test() -> None:
        async with started(VirtioMmioBlock(str(image), queues=2), MmioGuest) as guest:
            old = guest.queues[1]
            old.add([struct.pack("<IIQ", IN, 0, 0)], [512, 1])
            guest.notify(1)
            guest.set(mmio.QUEUE_SEL, 1)
            guest.set(mmio.QUEUE_READY, 0)
            fresh = ModelDriver(guest.memory, 8, 0x200000, event_idx=True)
            guest.set_up_queue(1, fresh)
            fresh.add([struct.pack("<IIQ", IN, 0, 1)], [512, 1])
            guest.notify(1)
            guest.queues[1] = fresh
            [(_, _, content)] = await guest.collected(1, 1)
            assert old.collect() == []
            assert content == image.read_bytes()[512:1024] + b"\0"

    run(test)


@pytest.mark.parametrize("index", [RECEIVE, TRANSMIT])
def test_one_queue_of_a_network_device_stops_and_the_other_goes_on(index: int) -> None:
    async def test() -> None:
        async with cable() as (guest, far):
            guest.queues[RECEIVE].add(writable=[256])
            guest.notify(RECEIVE)
            guest.set(mmio.QUEUE_SEL, index)
            guest.set(mmio.QUEUE_READY, 0)
            far.send(b"in" * 30)
            guest.queues[TRANSMIT].add([HEADER, b"out" * 20])
            guest.notify(RECEIVE)
            guest.notify(TRANSMIT)
            other = 1 - index
            await guest.collected(other, 1)
            await turns()
            assert guest.queues[index].collect() == []

    run(test)


def test_one_queue_of_a_console_stops_and_the_other_goes_on(tmp_path: Path) -> None:
    async def test() -> None:
        (tmp_path / "in").write_bytes(b"typed")
        device = VirtioMmioConsole(source=f"file:{tmp_path / 'in'}", output=f"file:{tmp_path / 'out'}")
        async with started(device, MmioGuest) as guest:
            guest.queues[RECEIVE].add(writable=[16])
            guest.set(mmio.QUEUE_SEL, RECEIVE)
            guest.set(mmio.QUEUE_READY, 0)
            guest.notify(RECEIVE)
            guest.queues[TRANSMIT].add([b"said"])
            guest.notify(TRANSMIT)
            await guest.collected(TRANSMIT, 1)
            await turns()
            assert guest.queues[RECEIVE].collect() == []
        assert (tmp_path / "out").read_bytes() == b"said"

    run(test)
