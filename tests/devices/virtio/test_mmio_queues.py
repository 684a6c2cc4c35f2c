"""`shardio.devices.virtio.mmio` and `transport` while a driver runs: queues, interrupts, and a driver that
lies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from shardio.devices.virtio import VirtioError, VirtioMmio, VirtioMmioRng, mmio
from shardio.interrupt import Doorbell, InterruptManager, LegacyConfig, RecordingBackend, RecordingTrigger
from shardio.memory import GuestMemory
from shardio.rate import LogLimit
from tests.devices.virtio.driver import NEXT, ModelDriver
from tests.devices.virtio.guest import (
    ACKNOWLEDGE,
    DRIVER,
    DRIVER_OK,
    EVENT_IDX,
    FAILED,
    FEATURES_OK,
    NEEDS_RESET,
    VERSION_1,
    Host,
    MmioGuest,
    attached,
)


@pytest.fixture
def trigger() -> RecordingTrigger:
    return RecordingTrigger()


@pytest.fixture
def guest(
    memory: GuestMemory, trigger: RecordingTrigger, loop: asyncio.AbstractEventLoop
) -> Iterator[MmioGuest]:
    device = VirtioMmioRng()
    device.attach(Host(memory, loop, trigger))
    yield MmioGuest(device, memory)
    device.detach()


@pytest.mark.parametrize("without", [0, EVENT_IDX])
def test_a_notification_serves_the_queue_and_interrupts(
    guest: MmioGuest, trigger: RecordingTrigger, without: int
) -> None:
    guest.start(without=without)
    head = guest.queues[0].add(writable=[16])
    guest.notify(0)
    [(done, written, content)] = guest.queues[0].collect()

    assert (done, written) == (head, 16)
    assert content != bytes(16)
    assert (guest.get(mmio.INTERRUPT_STATUS), trigger.count) == (mmio.INTERRUPT_USED, 1)


def test_the_doorbell_is_the_notification(guest: MmioGuest) -> None:
    guest.start()
    guest.queues[0].add(writable=[16])
    guest.device.doorbell(0)

    assert len(guest.queues[0].collect()) == 1
    assert guest.device.doorbells == [Doorbell(mmio.QUEUE_NOTIFY, 4, 0)]


def test_acknowledging_clears_the_bits_that_are_written(guest: MmioGuest) -> None:
    guest.start()
    guest.queues[0].add(writable=[1])
    guest.notify(0)
    guest.set(mmio.INTERRUPT_ACK, mmio.INTERRUPT_CONFIG)
    kept = guest.get(mmio.INTERRUPT_STATUS)
    guest.set(mmio.INTERRUPT_ACK, mmio.INTERRUPT_USED)

    assert (kept, guest.get(mmio.INTERRUPT_STATUS)) == (mmio.INTERRUPT_USED, 0)


def test_nothing_is_served_before_driver_ok(guest: MmioGuest) -> None:
    guest.accept(VERSION_1)
    driver = ModelDriver(guest.memory)
    guest.set_up_queue(0, driver)
    driver.add(writable=[1])
    guest.notify(0)

    assert driver.collect() == []


def test_nothing_is_served_after_the_driver_gave_up(guest: MmioGuest) -> None:
    guest.start()
    guest.set(mmio.STATUS, FAILED)
    guest.queues[0].add(writable=[1])
    guest.notify(0)

    assert guest.queues[0].collect() == []


@pytest.mark.parametrize("index", [1, 0xFFFFFFFF])
def test_a_notification_of_no_queue_is_ignored(guest: MmioGuest, index: int) -> None:
    guest.start()
    guest.notify(index)

    assert not guest.status & NEEDS_RESET


def test_a_live_queue_cannot_be_moved(guest: MmioGuest) -> None:
    guest.start()
    guest.set(mmio.QUEUE_DESC, 0)
    guest.set(mmio.QUEUE_SIZE, 1)
    guest.queues[0].add(writable=[1])
    guest.notify(0)

    assert (len(guest.queues[0].collect()), guest.get(mmio.QUEUE_READY)) == (1, 1)


def test_queue_ready_0_stops_the_queue_and_reads_back_0(guest: MmioGuest) -> None:
    """virtio 1.2, section 4.2.2: QueueReady reads the last value written, and 0 stops the queue."""
    guest.start()
    guest.queues[0].add(writable=[1])
    guest.set(mmio.QUEUE_READY, 0)
    guest.notify(0)

    assert (guest.get(mmio.QUEUE_READY), guest.queues[0].collect()) == (0, [])
    assert not guest.status & NEEDS_RESET


def test_a_stopped_queue_can_be_set_up_anew_while_the_device_runs(guest: MmioGuest) -> None:
    guest.start()
    guest.set(mmio.QUEUE_READY, 0)
    driver = ModelDriver(guest.memory, 4, 0x40000, event_idx=True)
    guest.set_up_queue(0, driver)
    driver.add(writable=[3])
    guest.notify(0)

    assert (guest.get(mmio.QUEUE_READY), len(driver.collect())) == (1, 1)


def test_a_guest_that_fails_its_device_in_a_loop_does_not_flood_the_log(
    guest: MmioGuest, quiet_log: LogLimit, caplog: pytest.LogCaptureFixture
) -> None:
    held_back = quiet_log.suppressed
    for _ in range(200):
        guest.accept(VERSION_1)
        guest.set(mmio.QUEUE_DESC, 1)
        guest.set(mmio.QUEUE_READY, 1)

    assert 1 <= len(caplog.records) <= 20
    assert quiet_log.suppressed - held_back >= 180


def test_a_level_interrupt_goes_down_with_the_last_cause(
    memory: GuestMemory, backend: RecordingBackend
) -> None:
    with InterruptManager(backend) as interrupts:
        level = interrupts.level(LegacyConfig(line=11))
        level.enable()
        with attached(VirtioMmioRng(), memory, trigger=level) as guest:
            guest.start()
            guest.queues[0].add(writable=[1])
            guest.notify(0)
            raised = level.active
            guest.set(mmio.INTERRUPT_ACK, mmio.INTERRUPT_USED)

        assert (raised, level.active, backend.delivered(gsi=11)) == (True, False, 1)


def test_a_config_change_has_a_generation_and_an_interrupt(
    guest: MmioGuest, trigger: RecordingTrigger
) -> None:
    guest.start()
    before = guest.get(mmio.CONFIG_GENERATION)
    guest.device.virtio.config_changed()

    assert guest.get(mmio.CONFIG_GENERATION) == before + 1
    assert (guest.get(mmio.INTERRUPT_STATUS), trigger.count) == (mmio.INTERRUPT_CONFIG, 1)


def test_a_device_without_guest_ram_says_so(loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(VirtioError, match="dma = True"):
        VirtioMmioRng().attach(Host(None, loop))


def test_a_device_without_interrupt_still_works(memory: GuestMemory) -> None:
    with attached(VirtioMmioRng(), memory, trigger=None) as guest:
        guest.start()
        guest.queues[0].add(writable=[1])
        guest.notify(0)

        assert len(guest.queues[0].collect()) == 1


# -- a driver that lies ---------------------------------------------------------------------------------


def test_a_broken_queue_stops_the_device_until_it_is_reset(
    guest: MmioGuest, trigger: RecordingTrigger
) -> None:
    guest.start()
    guest.queues[0].put_desc(0, 0, 1, NEXT, 0)
    guest.queues[0].offer(0)
    guest.notify(0)
    broken = guest.status & NEEDS_RESET, guest.get(mmio.INTERRUPT_STATUS), trigger.count
    guest.queues[0].add(writable=[1])
    guest.notify(0)
    nothing = guest.queues[0].u16(guest.queues[0].used + 2)
    guest.start()
    guest.queues[0].add(writable=[1])
    guest.notify(0)

    assert broken == (NEEDS_RESET, mmio.INTERRUPT_CONFIG, 1)
    assert nothing == 0
    assert len(guest.queues[0].collect()) == 1


@pytest.mark.parametrize(
    ("register", "value"), [(mmio.QUEUE_SIZE, 3), (mmio.QUEUE_SIZE, 128), (mmio.QUEUE_SIZE, 0)]
)
def test_an_impossible_queue_size_needs_a_reset(guest: MmioGuest, register: int, value: int) -> None:
    guest.accept(VERSION_1)
    guest.set(register, value)
    guest.set(mmio.QUEUE_READY, 1)

    assert (guest.get(mmio.QUEUE_READY), guest.status & NEEDS_RESET) == (0, NEEDS_RESET)


def test_a_queue_outside_ram_needs_a_reset(guest: MmioGuest) -> None:
    guest.accept(VERSION_1)
    guest.set(mmio.QUEUE_DESC + 4, 1)
    guest.set(mmio.QUEUE_READY, 1)

    assert (guest.get(mmio.QUEUE_READY), guest.status & NEEDS_RESET) == (0, NEEDS_RESET)


def test_driver_ok_after_a_failure_starts_nothing(guest: MmioGuest) -> None:
    guest.accept(VERSION_1)
    guest.set(mmio.QUEUE_SIZE, 3)
    guest.set(mmio.QUEUE_READY, 1)
    guest.set(mmio.STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
    guest.notify(0)

    assert guest.device.virtio.queues == []


def test_a_driver_that_never_stops_yields_to_the_loop(
    guest: MmioGuest, loop: asyncio.AbstractEventLoop
) -> None:
    """A queue's worth is served a turn: what is left is served in the next turns, not in one endless call."""
    guest.start(size=2)
    served: list[int] = []
    driver = guest.queues[0]
    device = guest.device.virtio
    original = device.serve

    def refill(index: int, chain: object) -> int | None:
        served.append(index)
        driver.avail_index += len(served) < 10
        driver.put_u16(driver.avail + 2, driver.avail_index)
        return original(index, chain)  # type: ignore[arg-type]

    device.serve = refill  # type: ignore[method-assign, assignment]
    driver.add(writable=[1])
    guest.notify(0)
    in_the_call = len(served)
    for _ in range(20):
        loop.run_until_complete(asyncio.sleep(0))

    assert (in_the_call, len(served)) == (2, 10)


def test_the_transport_is_a_plain_object() -> None:
    assert isinstance(VirtioMmioRng(), VirtioMmio)
    assert VirtioMmioRng.dma
    assert VirtioMmioRng.mmio_size == 0x1000


def test_a_config_change_before_the_driver_runs_interrupts_nobody(
    guest: MmioGuest, trigger: RecordingTrigger
) -> None:
    guest.device.core.config_changed()

    assert (trigger.count, guest.get(mmio.INTERRUPT_STATUS)) == (0, 0)


def test_a_reset_lowers_a_level_interrupt(memory: GuestMemory, backend: RecordingBackend) -> None:
    with InterruptManager(backend) as interrupts:
        level = interrupts.level(LegacyConfig(line=11))
        with attached(VirtioMmioRng(), memory, trigger=level) as guest:
            guest.start()
            guest.device.virtio.config_changed()
            raised = level.active
            guest.set(mmio.STATUS, 0)

            assert (raised, level.active) == (True, False)
