"""`shardio.devices.virtio.mmio` and `transport`, through their registers, with the rng as the device."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.devices.virtio import VirtioError, VirtioMmio, VirtioMmioRng, mmio
from shardio.interrupt import Doorbell, InterruptManager, LegacyConfig, RecordingBackend, RecordingTrigger
from shardio.memory import GuestMemory
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
)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory(0x100000) as memory:
        yield memory


@pytest.fixture
def host(memory: GuestMemory, loop: asyncio.AbstractEventLoop) -> Host:
    return Host(memory, loop)


@pytest.fixture
def guest(memory: GuestMemory, host: Host) -> Iterator[MmioGuest]:
    device = VirtioMmioRng()
    device.attach(host)
    yield MmioGuest(device, memory)
    device.detach()


def triggers(host: Host) -> int:
    assert isinstance(host.trigger, RecordingTrigger)
    return host.trigger.count


# -- registers ------------------------------------------------------------------------------------------


def test_identification(guest: MmioGuest) -> None:
    assert [guest.get(register) for register in (0x000, 0x004, 0x008)] == [0x74726976, 2, 4]


def test_there_is_no_shared_memory_region(guest: MmioGuest) -> None:
    guest.set(mmio.SHM_SEL, 0)

    assert [guest.get(register) for register in mmio.SHM_REGISTERS] == [0xFFFFFFFF] * 4


@pytest.mark.parametrize("size", [1, 2, 8])
def test_a_register_of_another_width_reads_zero(guest: MmioGuest, size: int) -> None:
    assert guest.device.read(mmio.MAGIC_VALUE, size) == 0


@pytest.mark.parametrize("size", [1, 2, 8])
def test_a_register_of_another_width_writes_nothing(guest: MmioGuest, size: int) -> None:
    guest.device.write(mmio.STATUS, size, ACKNOWLEDGE)

    assert guest.status == 0


def test_a_queue_that_is_not_there_has_size_zero(guest: MmioGuest) -> None:
    sizes = []
    for index in (0, 1, 0xFFFFFFFF):
        guest.set(mmio.QUEUE_SEL, index)
        sizes.append(guest.get(mmio.QUEUE_SIZE_MAX))

    assert sizes == [64, 0, 0]


def test_setting_up_a_queue_that_is_not_there_does_nothing(guest: MmioGuest) -> None:
    guest.accept(guest.offered())
    guest.set_up_queue(7, ModelDriver(guest.memory))

    assert (guest.get(mmio.QUEUE_READY), guest.status & NEEDS_RESET) == (0, 0)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 0x120), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**32 - 1), st.booleans()
        ),
        max_size=40,
    )
)
def test_no_access_ever_raises(accesses: list[tuple[int, int, int, bool]]) -> None:
    loop = asyncio.new_event_loop()
    with GuestMemory(0x10000) as memory:
        device = VirtioMmioRng()
        device.attach(Host(memory, loop))
        for offset, size, value, is_write in accesses:
            if is_write:
                device.write(offset, size, value & ((1 << 8 * size) - 1))
            assert 0 <= device.read(offset, size) < 1 << 8 * size
        device.detach()
    loop.close()


# -- status and features --------------------------------------------------------------------------------


def test_all_offered_features_are_agreed(guest: MmioGuest) -> None:
    assert guest.accept(guest.offered())


@pytest.mark.parametrize(
    "features", [0, EVENT_IDX, VERSION_1 | 1 << 5, VERSION_1 | 1 << 33, VERSION_1 | 1 << 63]
)
def test_features_without_version_1_or_never_offered_are_refused(guest: MmioGuest, features: int) -> None:
    assert not guest.accept(features)


def test_a_feature_page_that_does_not_exist_reads_zero(guest: MmioGuest) -> None:
    guest.set(mmio.DEVICE_FEATURES_SEL, 2)

    assert guest.get(mmio.DEVICE_FEATURES) == 0


def test_a_feature_of_a_page_that_does_not_exist_is_refused(guest: MmioGuest) -> None:
    guest.set(mmio.DRIVER_FEATURES_SEL, 2)
    guest.set(mmio.DRIVER_FEATURES, 1)
    guest.set(mmio.DRIVER_FEATURES_SEL, 1)
    guest.set(mmio.DRIVER_FEATURES, VERSION_1 >> 32)
    guest.set(mmio.STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK)

    assert not guest.status & FEATURES_OK


def test_features_are_final_once_agreed(guest: MmioGuest) -> None:
    guest.accept(VERSION_1)
    guest.set(mmio.DRIVER_FEATURES_SEL, 0)
    guest.set(mmio.DRIVER_FEATURES, EVENT_IDX)

    assert guest.device.core.accepted == VERSION_1


def test_status_bits_cannot_be_cleared_one_by_one(guest: MmioGuest) -> None:
    guest.set(mmio.STATUS, ACKNOWLEDGE | DRIVER)
    guest.set(mmio.STATUS, ACKNOWLEDGE)

    assert guest.status == ACKNOWLEDGE | DRIVER


def test_the_driver_cannot_set_needs_reset(guest: MmioGuest) -> None:
    guest.set(mmio.STATUS, ACKNOWLEDGE | NEEDS_RESET)

    assert guest.status == ACKNOWLEDGE


def test_driver_ok_needs_features_ok(guest: MmioGuest) -> None:
    guest.set(mmio.STATUS, ACKNOWLEDGE | DRIVER | DRIVER_OK)

    assert not guest.status & DRIVER_OK


def test_a_queue_needs_features_ok(guest: MmioGuest) -> None:
    guest.set_up_queue(0, ModelDriver(guest.memory))

    assert guest.get(mmio.QUEUE_READY) == 0


def test_reset_forgets_everything(guest: MmioGuest) -> None:
    guest.start()
    guest.queues[0].add(writable=[4])
    guest.notify(0)
    guest.set(mmio.STATUS, 0)

    assert guest.status == 0
    assert guest.get(mmio.INTERRUPT_STATUS) == 0
    assert guest.get(mmio.QUEUE_READY) == 0
    assert guest.device.core.accepted == 0


def test_a_device_comes_up_again_after_a_reset(guest: MmioGuest) -> None:
    guest.start()
    guest.start()
    guest.queues[0].add(writable=[4])
    guest.notify(0)

    assert len(guest.queues[0].collect()) == 1


# -- queues and interrupts ------------------------------------------------------------------------------


@pytest.mark.parametrize("without", [0, EVENT_IDX])
def test_a_notification_serves_the_queue_and_interrupts(guest: MmioGuest, host: Host, without: int) -> None:
    guest.start(without=without)
    head = guest.queues[0].add(writable=[16])
    guest.notify(0)
    [(done, written, content)] = guest.queues[0].collect()

    assert (done, written) == (head, 16)
    assert content != bytes(16)
    assert (guest.get(mmio.INTERRUPT_STATUS), triggers(host)) == (mmio.INTERRUPT_USED, 1)


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
    guest.set(mmio.QUEUE_READY, 0)
    guest.queues[0].add(writable=[1])
    guest.notify(0)

    assert (len(guest.queues[0].collect()), guest.get(mmio.QUEUE_READY)) == (1, 1)


def test_a_level_interrupt_goes_down_with_the_last_cause(
    memory: GuestMemory, loop: asyncio.AbstractEventLoop
) -> None:
    with RecordingBackend() as backend, InterruptManager(backend) as interrupts:
        level = interrupts.level(LegacyConfig(line=11))
        level.enable()
        device = VirtioMmioRng()
        device.attach(Host(memory, loop, level))
        guest = MmioGuest(device, memory)
        guest.start()
        guest.queues[0].add(writable=[1])
        guest.notify(0)
        raised = level.active
        guest.set(mmio.INTERRUPT_ACK, mmio.INTERRUPT_USED)
        device.detach()

        assert (raised, level.active, backend.delivered(gsi=11)) == (True, False, 1)


def test_a_config_change_has_a_generation_and_an_interrupt(guest: MmioGuest, host: Host) -> None:
    guest.start()
    before = guest.get(mmio.CONFIG_GENERATION)
    guest.device.virtio.config_changed()

    assert guest.get(mmio.CONFIG_GENERATION) == before + 1
    assert (guest.get(mmio.INTERRUPT_STATUS), triggers(host)) == (mmio.INTERRUPT_CONFIG, 1)


def test_a_device_without_guest_ram_says_so(loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(VirtioError, match="dma = True"):
        VirtioMmioRng().attach(Host(None, loop))


def test_a_device_without_interrupt_still_works(memory: GuestMemory, loop: asyncio.AbstractEventLoop) -> None:
    device = VirtioMmioRng()
    device.attach(Host(memory, loop, None))
    guest = MmioGuest(device, memory)
    guest.start()
    guest.queues[0].add(writable=[1])
    guest.notify(0)
    device.detach()

    assert len(guest.queues[0].collect()) == 1


# -- a driver that lies ---------------------------------------------------------------------------------


def test_a_broken_queue_stops_the_device_until_it_is_reset(guest: MmioGuest, host: Host) -> None:
    guest.start()
    guest.queues[0].put_desc(0, 0, 1, NEXT, 0)
    guest.queues[0].offer(0)
    guest.notify(0)
    broken = guest.status & NEEDS_RESET, guest.get(mmio.INTERRUPT_STATUS), triggers(host)
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

    assert guest.device.virtio.queues == ()


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
        if len(served) < 10:
            driver.put_u16(driver.avail + 2, driver.avail_index + 1)
            driver.avail_index += 1
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
