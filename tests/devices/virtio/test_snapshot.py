"""Snapshot and restore of virtio devices: another owner goes on with the same rings, nothing is lost or
doubled.
"""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.devices.virtio import QueueError, VirtioMmioBlock, VirtioMmioRng, mmio
from shardio.devices.virtio.mmio import MmioState
from shardio.interrupt import RecordingTrigger
from shardio.memory import GuestMemory
from tests.devices.virtio.driver import RAM, ModelDriver, serve_one
from tests.devices.virtio.guest import NEEDS_RESET, Host, MmioGuest, attached


@given(
    st.lists(st.sampled_from(["offer", "take", "give"]), max_size=30),
    st.lists(st.sampled_from(["offer", "take", "give"]), max_size=8),
)
def test_what_was_offered_and_not_given_back_is_served_again(before: list[str], after: list[str]) -> None:
    """The owner dies some steps after the snapshot: its successor serves exactly what the driver still
    waits for.
    """
    with GuestMemory(RAM) as memory:
        driver = ModelDriver(memory)
        queue = driver.queue()
        taken = []
        state = queue.snapshot()
        for operation in [*before, "snapshot", *after]:
            match operation:
                # The available ring remembers a queue's worth: a state older than that is refused, see below.
                case "offer" if driver.free and (driver.avail_index - state.next_avail) < driver.size:
                    driver.add([b"x"])
                case "take" if chain := queue.pop():
                    taken.append(chain)
                case "give" if taken:
                    queue.push(taken.pop(), 0)
                    driver.collect()
                case "snapshot":
                    state = queue.snapshot()
        successor = driver.queue()
        successor.resume(msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=type(state)))
        served = []
        while (chain := successor.pop()) is not None:
            served.append(chain)
        assert sorted(chain.head for chain in served) == sorted(driver.chains)
        for chain in served:
            successor.push(chain, 0)
        driver.collect()

        assert driver.chains == {}


def test_a_snapshot_that_the_rings_have_forgotten_is_refused(memory: GuestMemory) -> None:
    driver = ModelDriver(memory, size=2)
    queue = driver.queue()
    state = queue.snapshot()
    for _ in range(3):
        driver.add([b"x"])
        serve_one(queue)
        driver.collect()

    with pytest.raises(QueueError, match="older than the used ring"):
        driver.queue().resume(state)


def test_a_snapshot_that_the_available_ring_has_forgotten_is_refused(memory: GuestMemory) -> None:
    """Found by the property above: eight offers, one comes back, a ninth takes the first one's slot."""
    driver = ModelDriver(memory)
    queue = driver.queue()
    state = queue.snapshot()
    for _ in range(8):
        driver.add([b"x"])
    serve_one(queue)
    driver.collect()
    driver.add([b"x"])

    with pytest.raises(QueueError, match="more chains are available"):
        driver.queue().resume(state)


def test_a_used_ring_that_the_driver_rewrote_is_refused(memory: GuestMemory) -> None:
    driver = ModelDriver(memory)
    state = driver.queue().snapshot()
    driver.put_u16(driver.used + 2, 1)

    with pytest.raises(QueueError, match="never offered"):
        driver.queue().resume(state)


@pytest.mark.parametrize("attach_first", [False, True])
def test_a_device_goes_on_in_another_owner(
    memory: GuestMemory, loop: asyncio.AbstractEventLoop, attach_first: bool
) -> None:
    host = Host(memory, loop)
    first, second = VirtioMmioRng(), VirtioMmioRng()
    first.attach(host)
    guest = MmioGuest(first, memory)
    guest.start()
    guest.queues[0].add(writable=[8])
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(first.snapshot()), type=MmioState)
    steps = [second.attach, lambda _: second.restore(state)]
    for step in steps if attach_first else reversed(steps):
        step(host)
    guest.device = second
    unnoticed = guest.queues[0].collect()
    guest.queues[0].add(writable=[8])
    guest.notify(0)
    noticed = guest.queues[0].collect()
    status = guest.status
    first.detach()
    second.detach()

    assert (len(unnoticed), len(noticed)) == (1, 1)
    assert state.core.status == status


def test_a_request_in_flight_is_made_again(memory: GuestMemory, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(b"\xaa" * 512)

    async def test() -> bytes:
        host = Host(memory, asyncio.get_running_loop())
        first, second = VirtioMmioBlock(str(image)), VirtioMmioBlock(str(image))
        first.attach(host)
        guest = MmioGuest(first, memory)
        guest.start()
        guest.queues[0].add([struct.pack("<IIQ", 0, 0, 0)], [512, 1])
        guest.notify(0)
        state = first.snapshot()  # the thread may be done, but the loop has not given the chain back
        first.detach()
        second.attach(host)
        second.restore(state)
        guest.device = second
        [(_, _, content)] = await guest.collected(0, 1)
        second.detach()
        return content

    assert asyncio.run(test()) == b"\xaa" * 512 + b"\0"


def test_a_state_that_does_not_fit_needs_a_reset(memory: GuestMemory) -> None:
    with attached(VirtioMmioRng(), memory) as guest:
        guest.start()
        state = guest.device.snapshot()
        guest.queues[0].put_u16(guest.queues[0].avail + 2, 1000)
        guest.device.restore(state)

        assert guest.status & NEEDS_RESET


def test_registers_and_generation_go_on_in_another_owner(memory: GuestMemory) -> None:
    with attached(VirtioMmioRng(), memory) as guest:
        guest.set(mmio.DEVICE_FEATURES_SEL, 1)
        guest.set(mmio.DRIVER_FEATURES_SEL, 0)
        guest.set(mmio.QUEUE_SEL, 7)
        guest.device.core.config_changed()
        state = guest.device.snapshot()
    with attached(VirtioMmioRng(), memory) as successor:
        successor.device.restore(state)

        core = successor.device.core
        assert (core.features_page, core.driver_features_page, core.queue_select) == (1, 0, 7)
        assert successor.get(mmio.CONFIG_GENERATION) == 1


def test_an_interrupt_that_died_with_its_owner_is_raised_again(memory: GuestMemory) -> None:
    with attached(VirtioMmioRng(), memory) as guest:
        guest.start()
        guest.queues[0].add(writable=[8])
        guest.notify(0)
        state = guest.device.snapshot()
    trigger = RecordingTrigger()
    with attached(VirtioMmioRng(), memory, trigger=trigger) as successor:
        successor.device.restore(state)

        assert trigger.count == 1
