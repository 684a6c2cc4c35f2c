"""`shardio.devices.virtio.mmio` and `transport`, through their registers, with the rng as the device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.devices.virtio import VirtioMmioRng, mmio
from shardio.memory import GuestMemory
from tests.devices.virtio.driver import RAM, ModelDriver
from tests.devices.virtio.guest import (
    ACKNOWLEDGE,
    DRIVER,
    DRIVER_OK,
    EVENT_IDX,
    FEATURES_OK,
    NEEDS_RESET,
    VERSION_1,
    MmioGuest,
    attached,
)


@pytest.fixture
def guest(memory: GuestMemory) -> Iterator[MmioGuest]:
    with attached(VirtioMmioRng(), memory) as guest:
        yield guest


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
    with GuestMemory(RAM) as memory, attached(VirtioMmioRng(), memory) as guest:
        for offset, size, value, is_write in accesses:
            if is_write:
                guest.device.write(offset, size, value & ((1 << 8 * size) - 1))
            assert 0 <= guest.device.read(offset, size) < 1 << 8 * size


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
