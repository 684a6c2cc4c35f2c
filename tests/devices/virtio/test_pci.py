"""`shardio.devices.virtio.pci`: brought up through its BAR and interrupted, as a PCI driver does it."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.devices.pci_config import (
    COMMAND,
    COMMAND_INTX_DISABLE,
    COMMAND_MASTER,
    COMMAND_MEMORY,
    STATUS_INTERRUPT,
)
from shardio.devices.pci_config import STATUS as PCI_STATUS
from shardio.devices.virtio import VirtioError, VirtioPciRng
from shardio.devices.virtio.pci import ISR_CONFIG, ISR_USED, PciState
from shardio.devices.virtio.pci_common import (
    CONFIG_GENERATION,
    CONFIG_VECTOR,
    DEVICE_FEATURE,
    DEVICE_FEATURE_SELECT,
    DRIVER_FEATURE,
    NUM_QUEUES,
    QUEUE_DESC,
    QUEUE_DRIVER,
    QUEUE_ENABLE,
    QUEUE_NOTIFY_OFF,
    QUEUE_SELECT,
    QUEUE_SIZE,
    QUEUE_VECTOR,
    STATUS,
)
from shardio.interrupt import Doorbell, InterruptMode, MsiConfig, RecordingBackend
from shardio.interrupt.msix import CONTROL_ENABLE
from shardio.memory import GuestMemory
from tests.devices.virtio.driver import RAM
from tests.devices.virtio.guest import ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, Host
from tests.devices.virtio.pci_guest import BASE, LINE, NO_VECTOR, NOTIFY, PciGuest, plugged_in

ENABLED = COMMAND_MEMORY | COMMAND_MASTER
MESSAGES = [MsiConfig(0xFEE0_0000, 0x40), MsiConfig(0xFEE0_0000, 0x41)]

# -- the common configuration ---------------------------------------------------------------------------


def test_features_are_negotiated(pci: PciGuest) -> None:
    pci.set(DEVICE_FEATURE_SELECT, 4, 1)
    offered = pci.get(DEVICE_FEATURE, 4)
    pci.start()

    assert offered & 1
    assert pci.get(DRIVER_FEATURE, 4) == 1
    assert pci.get(STATUS, 1) == ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK


def test_the_queue_reads_back(pci: PciGuest) -> None:
    driver = pci.start(vector=1)

    assert pci.get(QUEUE_SIZE, 2) == 8
    assert pci.get(QUEUE_DESC, 8) == driver.desc
    assert (pci.get(QUEUE_DRIVER, 4), pci.get(QUEUE_DRIVER + 4, 4)) == (driver.avail, 0)
    assert (pci.get(QUEUE_ENABLE, 2), pci.get(QUEUE_VECTOR, 2), pci.get(QUEUE_NOTIFY_OFF, 2)) == (
        1,
        1,
        0,
    )


def test_a_queue_that_is_not_there_reads_as_none(pci: PciGuest) -> None:
    pci.set(QUEUE_SELECT, 2, 5)
    pci.set(QUEUE_ENABLE, 2, 1)

    assert (pci.get(QUEUE_SIZE, 2), pci.get(QUEUE_ENABLE, 2), pci.get(QUEUE_DESC, 8)) == (0, 0, 0)


def test_a_vector_that_is_not_there_reads_back_as_none(pci: PciGuest) -> None:
    pci.set(CONFIG_VECTOR, 2, 2)
    pci.set(QUEUE_VECTOR, 2, 1)

    assert (pci.get(CONFIG_VECTOR, 2), pci.get(QUEUE_VECTOR, 2)) == (NO_VECTOR, 1)


def test_a_reset_unassigns_vectors(pci: PciGuest) -> None:
    pci.start(vector=1, config_vector=0)
    pci.set(STATUS, 1, 0)

    assert (pci.get(CONFIG_VECTOR, 2), pci.get(QUEUE_VECTOR, 2)) == (NO_VECTOR, NO_VECTOR)


def test_a_field_of_another_width_reads_zero(pci: PciGuest) -> None:
    assert (pci.get(NUM_QUEUES, 1), pci.get(NUM_QUEUES, 4)) == (0, 0)


# -- queues and interrupts ------------------------------------------------------------------------------


def test_intx_is_raised_and_the_isr_lowers_it(pci: PciGuest, backend: RecordingBackend) -> None:
    driver = pci.start()
    driver.add(writable=[8])
    pci.notify()
    raised = backend.delivered(gsi=LINE)

    assert (raised, pci.isr(), pci.isr()) == (1, ISR_USED, 0)
    assert len(driver.collect()) == 1
    assert not pci.device._group.line.active  # type: ignore[union-attr]


def test_intx_can_be_forbidden_and_comes_when_it_is_allowed_again(
    pci: PciGuest, backend: RecordingBackend
) -> None:
    pci.config.config_write(COMMAND, 2, ENABLED | COMMAND_INTX_DISABLE)
    driver = pci.start()
    driver.add(writable=[8])
    pci.notify()
    forbidden = backend.delivered(gsi=LINE)
    pci.config.config_write(COMMAND, 2, ENABLED)

    assert (forbidden, backend.delivered(gsi=LINE)) == (0, 1)


@pytest.mark.parametrize("allowed", [ENABLED, ENABLED | COMMAND_INTX_DISABLE])
def test_the_status_register_tells_of_a_pending_intx(pci: PciGuest, allowed: int) -> None:
    """PCI 3.0, section 6.2.3: bit 3 is the function's interrupt state, whatever interrupt disable says."""
    pci.config.config_write(COMMAND, 2, allowed)
    before = pci.config.config_read(PCI_STATUS, 2)
    driver = pci.start()
    driver.add(writable=[8])
    pci.notify()
    pending = pci.config.config_read(COMMAND, 4) >> 16
    pci.isr()
    after = pci.config.config_read(PCI_STATUS, 2)

    assert [value & STATUS_INTERRUPT for value in (before, pending, after)] == [0, STATUS_INTERRUPT, 0]


def test_the_pending_interrupt_bit_cannot_be_written(pci: PciGuest) -> None:
    pci.config.config_write(PCI_STATUS, 2, 0xFFFF)

    assert not pci.config.config_read(PCI_STATUS, 2) & STATUS_INTERRUPT


def test_intx_that_was_pending_is_raised_when_msix_is_switched_off(
    pci: PciGuest, backend: RecordingBackend
) -> None:
    driver = pci.start()
    driver.add(writable=[8])
    pci.notify()
    pci.enable_msix(MESSAGES)
    pci.config.config_write(pci.msix + 2, 2, 0)

    assert pci.device._group is not None
    assert pci.device._group.line is not None
    assert pci.device._group.line.active


# -- bus mastering --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ring", ["write", "doorbell"])
def test_without_bus_mastering_a_notified_queue_is_left_alone_until_it_is_on_again(
    pci: PciGuest, ring: str
) -> None:
    """PCI 3.0, section 6.2.2: bit 2 of the command register at 0 forbids the device all accesses of its
    own.
    """
    driver = pci.start()
    pci.config.config_write(COMMAND, 2, COMMAND_MEMORY)
    driver.add(writable=[8])
    {"write": pci.notify, "doorbell": lambda: pci.device.doorbell(0)}[ring]()
    before = pci.memory.read(0, RAM)
    forbidden = driver.collect()
    pci.notify()

    assert forbidden == []
    assert pci.memory.read(0, RAM) == before
    pci.config.config_write(COMMAND, 2, ENABLED)
    assert len(driver.collect()) == 1


def test_a_device_that_is_started_without_bus_mastering_waits_for_it(pci: PciGuest) -> None:
    pci.config.config_write(COMMAND, 2, COMMAND_MEMORY)
    driver = pci.start()
    driver.add(writable=[8])
    pci.notify()
    early = driver.collect()
    pci.config.config_write(COMMAND, 2, ENABLED)

    assert (early, len(driver.collect())) == ([], 1)


def test_without_bus_mastering_a_message_waits(pci: PciGuest, backend: RecordingBackend) -> None:
    """A message is a write of the device's (PCI 3.0, section 6.8.3.5)."""
    pci.enable_msix(MESSAGES)
    pci.start(vector=1, config_vector=0)
    pci.config.config_write(COMMAND, 2, COMMAND_MEMORY)
    pci.device.virtio.config_changed()
    forbidden = [backend.delivered(each.gsi) for each in backend.irqfds.values()]
    pci.config.config_write(COMMAND, 2, ENABLED)

    assert forbidden == [0, 0]
    assert sum(backend.delivered(each.gsi) for each in backend.irqfds.values()) == 1


def test_msix_delivers_the_queues_vector(pci: PciGuest, backend: RecordingBackend) -> None:
    pci.enable_msix(MESSAGES)
    driver = pci.start(vector=1, config_vector=0)
    driver.add(writable=[8])
    pci.notify()
    delivered = {
        backend.routes[each.gsi]: backend.delivered(each.gsi) for each in list(backend.irqfds.values())
    }

    assert delivered == {MESSAGES[0]: 0, MESSAGES[1]: 1}
    assert pci.isr() == 0


def test_msix_tells_of_a_configuration_change(pci: PciGuest, backend: RecordingBackend) -> None:
    pci.enable_msix(MESSAGES)
    pci.start(vector=1, config_vector=0)
    pci.device.virtio.config_changed()
    delivered = {
        backend.routes[each.gsi].data: backend.delivered(each.gsi) for each in backend.irqfds.values()
    }

    assert (delivered, pci.get(CONFIG_GENERATION, 1)) == ({0x40: 1, 0x41: 0}, 1)


def test_without_a_vector_nothing_is_delivered(pci: PciGuest, backend: RecordingBackend) -> None:
    pci.enable_msix([MsiConfig(0xFEE0_0000, 0x40)] * 2)
    driver = pci.start()
    driver.add(writable=[8])
    pci.notify()

    assert [backend.delivered(each.gsi) for each in backend.irqfds.values()] == [0, 0]
    assert len(driver.collect()) == 1


def test_disabling_msix_goes_back_to_intx(pci: PciGuest, backend: RecordingBackend) -> None:
    pci.enable_msix([MsiConfig(0xFEE0_0000, 0x40)] * 2)
    control = pci.config.config_read(pci.msix + 2, 2)
    pci.config.config_write(pci.msix + 3, 1, 0)

    assert control == CONTROL_ENABLE | 1
    assert pci.config.config_read(pci.msix + 2, 2) == 1
    assert pci.device._group is not None
    assert pci.device._group.mode is InterruptMode.INTX


def test_a_pending_bit_shows_in_the_pba(pci: PciGuest) -> None:
    pci.enable_msix([MsiConfig(0xFEE0_0000, 0x40)] * 2)
    table, pba = pci.config.config_read(pci.msix + 4, 4), pci.config.config_read(pci.msix + 8, 4)
    pci.device.write(table + 16 + 12, 4, 1)
    driver = pci.start(vector=1)
    driver.add(writable=[8])
    pci.notify()

    assert pci.device.read(pba, 8) == 0b10


def test_a_broken_queue_needs_a_reset_and_says_so(pci: PciGuest, backend: RecordingBackend) -> None:
    driver = pci.start()
    driver.offer(200)
    pci.notify()

    assert pci.get(STATUS, 1) & NEEDS_RESET
    assert (pci.isr(), backend.delivered(gsi=LINE)) == (ISR_CONFIG, 1)


def test_the_doorbells_are_the_notification_addresses(pci: PciGuest) -> None:
    driver = pci.start()
    driver.add(writable=[8])
    pci.device.doorbell(0)

    assert pci.device.doorbells == [Doorbell(pci.virtio[NOTIFY].offset, 2)]
    assert len(driver.collect()) == 1


@pytest.mark.parametrize(
    ("messages", "control", "expected"),
    [([], 0, {None: True}), (MESSAGES, CONTROL_ENABLE, {MESSAGES[0]: False, MESSAGES[1]: True})],
    ids=["intx", "msix"],
)
def test_a_device_goes_on_in_another_owner(
    pci: PciGuest,
    backend: RecordingBackend,
    messages: list[MsiConfig],
    control: int,
    expected: dict[MsiConfig | None, bool],
) -> None:
    """The successor has the BAR, the vectors and the queue of its predecessor, and serves what it left."""
    driver = pci.start(vector=1, config_vector=0)
    pci.enable_msix(messages, control)
    driver.add(writable=[8])
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(pci.device.snapshot()), type=PciState)
    pci.device.detach()
    successor = VirtioPciRng(line=LINE)
    successor.restore(state)
    with plugged_in(successor, pci.memory, backend):
        delivered = {
            backend.routes.get(each.gsi): backend.delivered(each.gsi) > 0 for each in backend.irqfds.values()
        }
        bar = successor.function.bar(0)

    assert len(driver.collect()) == 1
    assert bar == BASE
    assert delivered == expected


def test_a_host_without_interrupts_is_refused(memory: GuestMemory, loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(VirtioError, match="InterruptManager"):
        VirtioPciRng().attach(Host(memory, loop))


def accesses(
    where: str, places: int, widths: list[int]
) -> st.SearchStrategy[tuple[str, bool, int, int, int]]:
    """(where, write, offset, width, value) of accesses within so many bytes."""
    return st.sampled_from(widths).flatmap(
        lambda width: st.tuples(
            st.just(where),
            st.booleans(),
            st.integers(0, places - width),
            st.just(width),
            st.integers(0, 2 ** (8 * width) - 1),
        )
    )


@given(st.lists(accesses("config", 0x100, [1, 2, 4]) | accesses("bar", 0x4008, [1, 2, 4, 8]), max_size=40))
def test_no_access_ever_raises(steps: list[tuple[str, bool, int, int, int]]) -> None:
    with (
        GuestMemory(RAM) as memory,
        RecordingBackend() as backend,
        plugged_in(VirtioPciRng(), memory, backend) as guest,
    ):
        guest.config.config_write(COMMAND, 2, COMMAND_MEMORY)
        reads = {"config": guest.config.config_read, "bar": guest.device.read}
        writes = {"config": guest.config.config_write, "bar": guest.device.write}
        for where, is_write, at, width, value in steps:
            if is_write:
                writes[where](at, width, value)
            assert 0 <= reads[where](at, width) < 1 << 8 * width


def test_a_reset_lowers_intx_and_clears_the_isr(pci: PciGuest) -> None:
    pci.start()
    pci.device.virtio.config_changed()
    raised = pci.device._group.line.active  # type: ignore[union-attr]
    pci.set(STATUS, 1, 0)

    assert raised
    assert not pci.device._group.line.active  # type: ignore[union-attr]
    assert pci.isr() == 0
