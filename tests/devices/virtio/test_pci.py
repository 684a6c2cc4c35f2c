"""`shardio.devices.virtio.pci` and `pci_function`: found, brought up and interrupted as a PCI driver
does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.devices.pci_config import BAR0, COMMAND, COMMAND_MEMORY
from shardio.devices.pci_host import PciHost, bdf
from shardio.devices.virtio import VirtioError, VirtioPciRng
from shardio.devices.virtio.pci import (
    CONFIG_GENERATION,
    CONFIG_VECTOR,
    DEVICE_FEATURE,
    DEVICE_FEATURE_SELECT,
    DRIVER_FEATURE,
    DRIVER_FEATURE_SELECT,
    ISR_CONFIG,
    ISR_USED,
    NUM_QUEUES,
    QUEUE_DESC,
    QUEUE_DEVICE,
    QUEUE_DRIVER,
    QUEUE_ENABLE,
    QUEUE_NOTIFY_OFF,
    QUEUE_SELECT,
    QUEUE_SIZE,
    QUEUE_VECTOR,
    STATUS,
    PciState,
)
from shardio.interrupt import Doorbell, InterruptManager, InterruptMode, MsiConfig, RecordingBackend
from shardio.interrupt.msix import CONTROL_ENABLE
from shardio.memory import GuestMemory
from tests.devices.virtio.driver import ModelDriver
from tests.devices.virtio.guest import (
    ACKNOWLEDGE,
    DRIVER,
    DRIVER_OK,
    FEATURES_OK,
    NEEDS_RESET,
    VERSION_1,
    Host,
)

BASE = 0xC000_0000
COMMON, NOTIFY, ISR, DEVICE_CONFIG, WINDOW = 1, 2, 3, 4, 5
NO_VECTOR = 0xFFFF
LINE = 11


@dataclass
class PciTestHost(Host):
    """A host that has interrupts to ask for."""

    interrupts: InterruptManager | None = None


@dataclass(frozen=True)
class Capability:
    """One entry of the capability list."""

    at: int
    kind: int
    offset: int
    length: int


class PciGuest:
    """A driver that knows only configuration space, the capabilities, and the BAR they point to."""

    def __init__(self, device: VirtioPciRng, memory: GuestMemory) -> None:
        self.device, self.memory = device, memory
        self.config = device.function
        self.virtio: dict[int, Capability] = {}
        self.msix = 0
        at = self.config.config_read(0x34, 1)
        while at:
            if self.config.config_read(at, 1) == 0x11:
                self.msix = at
            else:
                kind = self.config.config_read(at + 3, 1)
                offset, length = self.config.config_read(at + 8, 4), self.config.config_read(at + 12, 4)
                self.virtio[kind] = Capability(at, kind, offset, length)
            at = self.config.config_read(at + 1, 1)

    def enable_memory(self) -> None:
        self.config.config_write(BAR0, 4, BASE)
        self.config.config_write(COMMAND, 2, COMMAND_MEMORY)

    def get(self, field: int, size: int) -> int:
        return self.device.read(self.virtio[COMMON].offset + field, size)

    def set(self, field: int, size: int, value: int) -> None:
        self.device.write(self.virtio[COMMON].offset + field, size, value)

    def start(self, vector: int = NO_VECTOR, config_vector: int = NO_VECTOR, size: int = 8) -> ModelDriver:
        self.set(STATUS, 1, 0)
        self.set(STATUS, 1, ACKNOWLEDGE | DRIVER)
        self.set(DRIVER_FEATURE_SELECT, 4, 1)
        self.set(DRIVER_FEATURE, 4, VERSION_1 >> 32)
        self.set(STATUS, 1, ACKNOWLEDGE | DRIVER | FEATURES_OK)
        self.set(CONFIG_VECTOR, 2, config_vector)
        driver = ModelDriver(self.memory, size)
        self.set(QUEUE_SELECT, 2, 0)
        self.set(QUEUE_SIZE, 2, size)
        self.set(QUEUE_VECTOR, 2, vector)
        self.set(QUEUE_DESC, 8, driver.desc)
        self.set(QUEUE_DRIVER, 4, driver.avail)
        self.set(QUEUE_DRIVER + 4, 4, 0)
        self.set(QUEUE_DEVICE, 8, driver.used)
        self.set(QUEUE_ENABLE, 2, 1)
        self.set(STATUS, 1, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
        return driver

    def notify(self, queue: int = 0) -> None:
        multiplier = self.config.config_read(self.virtio[NOTIFY].at + 16, 4)
        self.device.write(self.virtio[NOTIFY].offset + multiplier * queue, 2, queue)

    def enable_msix(self, messages: list[MsiConfig]) -> None:
        table = self.config.config_read(self.msix + 4, 4)
        for index, message in enumerate(messages):
            at = table + 16 * index
            self.device.write(at, 4, message.address & 0xFFFFFFFF)
            self.device.write(at + 4, 4, message.address >> 32)
            self.device.write(at + 8, 4, message.data)
            self.device.write(at + 12, 4, 0)
        self.config.config_write(self.msix + 2, 2, CONTROL_ENABLE)

    def isr(self) -> int:
        return self.device.read(self.virtio[ISR].offset, 1)


@pytest.fixture
def backend() -> Iterator[RecordingBackend]:
    with RecordingBackend() as backend:
        yield backend


@pytest.fixture
def guest(backend: RecordingBackend) -> Iterator[PciGuest]:
    loop = asyncio.new_event_loop()
    with GuestMemory(0x100000) as memory, InterruptManager(backend) as interrupts:
        device = VirtioPciRng(line=LINE)
        device.attach(PciTestHost(memory, loop, None, interrupts=interrupts))
        guest = PciGuest(device, memory)
        guest.enable_memory()
        yield guest
        device.detach()
    loop.close()


# -- configuration space --------------------------------------------------------------------------------


def test_the_function_says_what_it_is(guest: PciGuest) -> None:
    assert guest.config.config_read(0, 4) == 0x1044_1AF4
    assert guest.config.config_read(8, 1) >= 1
    assert guest.config.config_read(0x3D, 1) == 1
    assert guest.config.config_read(6, 2) & 0x10


def test_every_structure_is_in_the_bar(guest: PciGuest) -> None:
    assert set(guest.virtio) == {COMMON, NOTIFY, ISR, DEVICE_CONFIG, WINDOW}
    assert all(each.offset + each.length <= guest.device.mmio_size for each in guest.virtio.values())
    assert guest.virtio[COMMON].length >= 0x38


def test_the_structures_do_not_overlap(guest: PciGuest) -> None:
    spans = sorted((each.offset, each.offset + each.length) for each in guest.virtio.values() if each.length)

    assert all(one[1] <= other[0] for one, other in pairwise(spans))


def test_the_bar_tells_its_size(guest: PciGuest) -> None:
    guest.config.config_write(BAR0, 4, 0xFFFFFFFF)

    assert guest.config.config_read(BAR0, 4) == 0x1_0000_0000 - guest.device.mmio_size


def test_it_answers_behind_a_pci_host(guest: PciGuest) -> None:
    pci = PciHost()
    pci.add_function(bdf(0, 3), guest.config)
    pci.write(0, 4, 0x8000_0000 | bdf(0, 3) << 8)

    assert pci.read(4, 4) == 0x1044_1AF4


def test_without_decoding_the_bar_reads_all_ones(guest: PciGuest) -> None:
    guest.config.config_write(COMMAND, 2, 0)

    assert guest.get(NUM_QUEUES, 2) == 0xFFFF


def test_without_decoding_the_bar_drops_writes(guest: PciGuest) -> None:
    guest.config.config_write(COMMAND, 2, 0)
    guest.set(STATUS, 1, ACKNOWLEDGE)
    guest.config.config_write(COMMAND, 2, COMMAND_MEMORY)

    assert guest.get(STATUS, 1) == 0


def test_a_moved_bar_is_told(guest: PciGuest) -> None:
    moves: list[int | None] = []
    guest.device.on_bar = moves.append
    guest.config.config_write(COMMAND, 2, 0)
    guest.config.config_write(BAR0, 4, BASE + 0x10000)
    guest.config.config_write(COMMAND, 2, COMMAND_MEMORY)

    assert moves == [None, BASE + 0x10000]


def test_the_window_reads_the_bar(guest: PciGuest) -> None:
    window = guest.virtio[WINDOW].at
    guest.config.config_write(window + 4, 1, 0)
    guest.config.config_write(window + 8, 4, guest.virtio[COMMON].offset + NUM_QUEUES)
    guest.config.config_write(window + 12, 4, 2)

    assert guest.config.config_read(window + 16, 2) == 1


def test_the_window_writes_the_bar(guest: PciGuest) -> None:
    window = guest.virtio[WINDOW].at
    guest.config.config_write(window + 8, 4, guest.virtio[COMMON].offset + STATUS)
    guest.config.config_write(window + 12, 4, 1)
    guest.config.config_write(window + 16, 1, ACKNOWLEDGE)

    assert guest.get(STATUS, 1) == ACKNOWLEDGE


@pytest.mark.parametrize(
    ("bar", "offset", "length"),
    [(1, 0x12, 2), (0, 0x4000, 2), (0, 0x13, 2), (0, 0x12, 4), (0, 0xFFFFFFFF, 2)],
)
def test_an_improper_window_reaches_nothing(guest: PciGuest, bar: int, offset: int, length: int) -> None:
    window = guest.virtio[WINDOW].at
    guest.config.config_write(window + 4, 1, bar)
    guest.config.config_write(window + 8, 4, offset)
    guest.config.config_write(window + 12, 4, length)
    guest.config.config_write(window + 16, 2, 1)

    assert guest.config.config_read(window + 16, 2) == 0


# -- the common configuration ---------------------------------------------------------------------------


def test_features_are_negotiated(guest: PciGuest) -> None:
    guest.set(DEVICE_FEATURE_SELECT, 4, 1)
    offered = guest.get(DEVICE_FEATURE, 4)
    guest.start()

    assert offered & 1
    assert guest.get(DRIVER_FEATURE, 4) == 1
    assert guest.get(STATUS, 1) == ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK


def test_the_queue_reads_back(guest: PciGuest) -> None:
    driver = guest.start(vector=1)

    assert guest.get(QUEUE_SIZE, 2) == 8
    assert guest.get(QUEUE_DESC, 8) == driver.desc
    assert (guest.get(QUEUE_DRIVER, 4), guest.get(QUEUE_DRIVER + 4, 4)) == (driver.avail, 0)
    assert (guest.get(QUEUE_ENABLE, 2), guest.get(QUEUE_VECTOR, 2), guest.get(QUEUE_NOTIFY_OFF, 2)) == (
        1,
        1,
        0,
    )


def test_a_queue_that_is_not_there_reads_as_none(guest: PciGuest) -> None:
    guest.set(QUEUE_SELECT, 2, 5)
    guest.set(QUEUE_ENABLE, 2, 1)

    assert (guest.get(QUEUE_SIZE, 2), guest.get(QUEUE_ENABLE, 2), guest.get(QUEUE_DESC, 8)) == (0, 0, 0)


def test_a_vector_that_is_not_there_reads_back_as_none(guest: PciGuest) -> None:
    guest.set(CONFIG_VECTOR, 2, 2)
    guest.set(QUEUE_VECTOR, 2, 1)

    assert (guest.get(CONFIG_VECTOR, 2), guest.get(QUEUE_VECTOR, 2)) == (NO_VECTOR, 1)


def test_a_reset_unassigns_vectors(guest: PciGuest) -> None:
    guest.start(vector=1, config_vector=0)
    guest.set(STATUS, 1, 0)

    assert (guest.get(CONFIG_VECTOR, 2), guest.get(QUEUE_VECTOR, 2)) == (NO_VECTOR, NO_VECTOR)


def test_a_field_of_another_width_reads_zero(guest: PciGuest) -> None:
    assert (guest.get(NUM_QUEUES, 1), guest.get(NUM_QUEUES, 4)) == (0, 0)


# -- queues and interrupts ------------------------------------------------------------------------------


def test_intx_is_raised_and_the_isr_lowers_it(guest: PciGuest, backend: RecordingBackend) -> None:
    driver = guest.start()
    driver.add(writable=[8])
    guest.notify()
    raised = backend.delivered(gsi=LINE)

    assert (raised, guest.isr(), guest.isr()) == (1, ISR_USED, 0)
    assert len(driver.collect()) == 1
    assert not guest.device._group.line.active  # type: ignore[union-attr]


def test_intx_can_be_forbidden_and_comes_when_it_is_allowed_again(
    guest: PciGuest, backend: RecordingBackend
) -> None:
    guest.config.config_write(COMMAND, 2, COMMAND_MEMORY | 0x400)
    driver = guest.start()
    driver.add(writable=[8])
    guest.notify()
    forbidden = backend.delivered(gsi=LINE)
    guest.config.config_write(COMMAND, 2, COMMAND_MEMORY)

    assert (forbidden, backend.delivered(gsi=LINE)) == (0, 1)


def test_msix_delivers_the_queues_vector(guest: PciGuest, backend: RecordingBackend) -> None:
    messages = [MsiConfig(0xFEE0_0000, 0x40), MsiConfig(0xFEE0_0000, 0x41)]
    guest.enable_msix(messages)
    driver = guest.start(vector=1, config_vector=0)
    driver.add(writable=[8])
    guest.notify()
    delivered = {
        backend.routes[each.gsi]: backend.delivered(each.gsi) for each in list(backend.irqfds.values())
    }

    assert delivered == {messages[0]: 0, messages[1]: 1}
    assert guest.isr() == 0


def test_msix_tells_of_a_configuration_change(guest: PciGuest, backend: RecordingBackend) -> None:
    messages = [MsiConfig(0xFEE0_0000, 0x40), MsiConfig(0xFEE0_0000, 0x41)]
    guest.enable_msix(messages)
    guest.start(vector=1, config_vector=0)
    guest.device.virtio.config_changed()
    delivered = {
        backend.routes[each.gsi].data: backend.delivered(each.gsi) for each in backend.irqfds.values()
    }

    assert (delivered, guest.get(CONFIG_GENERATION, 1)) == ({0x40: 1, 0x41: 0}, 1)


def test_without_a_vector_nothing_is_delivered(guest: PciGuest, backend: RecordingBackend) -> None:
    guest.enable_msix([MsiConfig(0xFEE0_0000, 0x40)] * 2)
    driver = guest.start()
    driver.add(writable=[8])
    guest.notify()

    assert [backend.delivered(each.gsi) for each in backend.irqfds.values()] == [0, 0]
    assert len(driver.collect()) == 1


def test_disabling_msix_goes_back_to_intx(guest: PciGuest, backend: RecordingBackend) -> None:
    guest.enable_msix([MsiConfig(0xFEE0_0000, 0x40)] * 2)
    control = guest.config.config_read(guest.msix + 2, 2)
    guest.config.config_write(guest.msix + 3, 1, 0)

    assert control == CONTROL_ENABLE | 1
    assert guest.config.config_read(guest.msix + 2, 2) == 1
    assert guest.device._group is not None
    assert guest.device._group.mode is InterruptMode.INTX


def test_a_pending_bit_shows_in_the_pba(guest: PciGuest) -> None:
    guest.enable_msix([MsiConfig(0xFEE0_0000, 0x40)] * 2)
    table, pba = guest.config.config_read(guest.msix + 4, 4), guest.config.config_read(guest.msix + 8, 4)
    guest.device.write(table + 16 + 12, 4, 1)
    driver = guest.start(vector=1)
    driver.add(writable=[8])
    guest.notify()

    assert guest.device.read(pba, 8) == 0b10


def test_a_broken_queue_needs_a_reset_and_says_so(guest: PciGuest, backend: RecordingBackend) -> None:
    driver = guest.start()
    driver.offer(200)
    guest.notify()

    assert guest.get(STATUS, 1) & NEEDS_RESET
    assert (guest.isr(), backend.delivered(gsi=LINE)) == (ISR_CONFIG, 1)


def test_the_doorbells_are_the_notification_addresses(guest: PciGuest) -> None:
    driver = guest.start()
    driver.add(writable=[8])
    guest.device.doorbell(0)

    assert guest.device.doorbells == [Doorbell(guest.virtio[NOTIFY].offset, 2)]
    assert len(driver.collect()) == 1


@pytest.mark.parametrize("msix", [False, True])
def test_a_device_goes_on_in_another_owner(guest: PciGuest, backend: RecordingBackend, msix: bool) -> None:
    """The successor has the BAR, the vectors and the queue of its predecessor, and serves what it left."""
    if_msix = [MsiConfig(0xFEE0_0000, 0x40), MsiConfig(0xFEE0_0000, 0x41)] * msix
    guest.config.config_write(guest.msix + 2, 2, 0)
    driver = guest.start(vector=1, config_vector=0)
    for _ in if_msix[:1]:
        guest.enable_msix(if_msix)
    driver.add(writable=[8])
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(guest.device.snapshot()), type=PciState)
    loop = asyncio.new_event_loop()
    with InterruptManager(backend) as interrupts:
        guest.device.detach()
        successor = VirtioPciRng(line=LINE)
        successor.restore(state)
        successor.attach(PciTestHost(guest.memory, loop, None, interrupts=interrupts))
        delivered = {
            backend.routes.get(each.gsi): backend.delivered(each.gsi) > 0 for each in backend.irqfds.values()
        }
        bar = successor.function.bar(0)
        successor.detach()
    loop.close()

    assert len(driver.collect()) == 1
    assert bar == BASE
    assert delivered == ({if_msix[0]: False, if_msix[1]: True} if msix else {None: True})


def test_a_host_without_interrupts_is_refused() -> None:
    loop = asyncio.new_event_loop()
    with GuestMemory(0x10000) as memory, pytest.raises(VirtioError, match="InterruptManager"):
        VirtioPciRng().attach(Host(memory, loop))
    loop.close()


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.booleans(),
            st.integers(0, 0x4000),
            st.sampled_from([1, 2, 4, 8]),
            st.integers(0, 2**64 - 1),
        ),
        max_size=40,
    )
)
def test_no_access_ever_raises(accesses: list[tuple[bool, bool, int, int, int]]) -> None:
    loop = asyncio.new_event_loop()
    with (
        GuestMemory(0x10000) as memory,
        RecordingBackend() as backend,
        InterruptManager(backend) as interrupts,
    ):
        device = VirtioPciRng()
        device.attach(PciTestHost(memory, loop, None, interrupts=interrupts))
        device.function.config_write(COMMAND, 2, COMMAND_MEMORY)
        for in_config, is_write, at, size, value in accesses:
            width = min(size, 4) if in_config else size
            target = device.function if in_config else device
            read = device.function.config_read if in_config else device.read
            write = device.function.config_write if in_config else device.write
            register = at % (257 - width) if in_config else at
            if is_write:
                write(register, width, value & ((1 << 8 * width) - 1))
            assert 0 <= read(register, width) < 1 << 8 * width, target
        device.detach()
    loop.close()
