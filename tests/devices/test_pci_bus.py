"""`PciBus`: endpoints by slot, BARs that come, move, collide and go, doorbells that move along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio import IoManager, MmioAddress, MmioRange, PioAddress, PioRange
from shardio.devices import DeviceOptionError, PciBus
from shardio.devices.pci_config import BAR0, COMMAND, COMMAND_MEMORY, PciConfig
from shardio.interrupt import Doorbell
from shardio.rate import LogLimit
from tests.devices.support import RecordingHost

WINDOW = 0xE000_0000
WINDOW_SIZE = 1 << 20
SIZE = 0x1000


class Endpoint:
    """A BAR that remembers its accesses; its reads give its number and the offset."""

    mmio_size = SIZE

    def __init__(self, number: int = 1, fails: bool = False) -> None:
        self.number, self.fails = number, fails
        self.function = _Function(self)
        self.function.add_bar(0, SIZE)
        self.on_bar: Any = None
        self.doorbells = [Doorbell(0x10, 4)]
        self.written: list[tuple[int, int, int]] = []
        self.attached = 0

    def attach(self, host: object) -> None:
        if self.fails:
            raise RuntimeError("no luck")
        self.attached += 1

    def detach(self) -> None:
        self.attached -= 1

    def read(self, offset: int, size: int) -> int:
        return self.number << 16 | offset

    def write(self, offset: int, size: int, value: int) -> None:
        self.written.append((offset, size, value))

    def doorbell(self, index: int) -> None:
        raise AssertionError("nobody rings here")

    def snapshot(self) -> bytes:
        return bytes(self.function.data)

    def restore(self, state: bytes) -> None:
        self.function.data[:] = state
        self.function.tell()


class _Function(PciConfig):
    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(0x1234, endpoint.number, class_code=0xFF0000)
        self._endpoint = endpoint

    def config_write(self, register: int, size: int, value: int) -> None:
        super().config_write(register, size, value)
        self.tell()

    def tell(self) -> None:
        decodes = self.load(COMMAND, 2) & COMMAND_MEMORY
        self._endpoint.on_bar(self.bar(0) if decodes else None)


class Bells:
    """A doorbell set of a host that has a hypervisor."""

    def __init__(self, log: list[tuple[str, int]], base: int) -> None:
        self.log = log
        log.append(("bind", base))

    def move(self, base: int) -> None:
        self.log.append(("move", base))

    def close(self) -> None:
        self.log.append(("close", 0))


class Interrupts:
    """What binds doorbells."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []

    def doorbells(self, device: object, base: int) -> Bells:
        return Bells(self.log, base)


class Guest:
    """Accesses of a guest through an `IoManager`."""

    def __init__(self, bus: PciBus) -> None:
        self.io = IoManager()
        self.io.register_pio(PioRange(0xCF8, 8), bus)
        self.io.register_mmio(MmioRange(WINDOW, WINDOW_SIZE), bus)

    def config(self, slot: int, register: int, value: int) -> None:
        self.io.pio_write(PioAddress(0xCF8), (0x8000_0000 | slot << 11 | register).to_bytes(4, "little"))
        self.io.pio_write(PioAddress(0xCFC), value.to_bytes(4, "little"))

    def identify(self, slot: int) -> int:
        return self.config_read(slot, 0)

    def config_read(self, slot: int, register: int) -> int:
        self.io.pio_write(PioAddress(0xCF8), (0x8000_0000 | slot << 11 | register).to_bytes(4, "little"))
        data = bytearray(4)
        self.io.pio_read(PioAddress(0xCFC), data)
        return int.from_bytes(data, "little")

    def place(self, slot: int, base: int) -> None:
        self.config(slot, BAR0, base)
        self.config(slot, COMMAND, COMMAND_MEMORY)

    def read(self, address: int, size: int = 4) -> int:
        data = bytearray(size)
        self.io.mmio_read(MmioAddress(address), data)
        return int.from_bytes(data, "little")

    def write(self, address: int, value: int) -> None:
        self.io.mmio_write(MmioAddress(address), value.to_bytes(4, "little"))


@pytest.fixture
def bus() -> PciBus:
    """Two endpoints, numbers 1 and 2 in slots 1 and 5."""
    return made_bus()


def made_bus() -> PciBus:
    """The same, outside of a fixture."""
    bus = PciBus()
    bus.add_endpoint(1, Endpoint(1))
    bus.add_endpoint(5, Endpoint(2))
    return bus


@pytest.fixture
def window_host() -> RecordingHost:
    """A host that tells of the window and binds doorbells."""
    host = RecordingHost()
    host.ranges = (PioRange(0xCF8, 8), MmioRange(WINDOW, WINDOW_SIZE))
    host.interrupts = Interrupts()  # type: ignore[attr-defined]
    return host


@pytest.fixture
def guest(bus: PciBus) -> Iterator[Guest]:
    """A guest of the attached bus."""
    host = RecordingHost()
    bus.attach(host)
    yield Guest(bus)
    bus.detach()


def test_endpoints_are_found_by_slot(guest: Guest) -> None:
    assert [guest.identify(slot) for slot in (1, 2, 5)] == [0x0001_1234, 0xFFFF_FFFF, 0x0002_1234]


def test_a_placed_bar_is_read(guest: Guest) -> None:
    guest.place(1, WINDOW + 0x3000)

    assert guest.read(WINDOW + 0x3010) == 0x1_0010
    assert guest.read(WINDOW + 0x4000) == 0xFFFF_FFFF


def test_a_placed_bar_is_written(guest: Guest, bus: PciBus) -> None:
    guest.place(5, WINDOW)

    guest.write(WINDOW + 8, 0x1234_5678)
    guest.write(WINDOW + SIZE, 1)

    assert bus.endpoints[5].written == [(8, 4, 0x1234_5678)]  # type: ignore[attr-defined]


def test_a_moved_bar_answers_at_its_new_place_alone(guest: Guest) -> None:
    guest.place(1, WINDOW)
    guest.config(1, BAR0, WINDOW + 0x8000)

    assert guest.read(WINDOW) == 0xFFFF_FFFF
    assert guest.read(WINDOW + 0x8000) == 0x1_0000


def test_decoding_switched_off_and_on(guest: Guest) -> None:
    guest.place(1, WINDOW)
    guest.config(1, COMMAND, 0)
    off = guest.read(WINDOW)
    guest.config(1, COMMAND, COMMAND_MEMORY)

    assert (off, guest.read(WINDOW)) == (0xFFFF_FFFF, 0x1_0000)


def test_a_bar_on_top_of_another_answers_nothing_and_takes_nothing_away(guest: Guest, bus: PciBus) -> None:
    guest.place(1, WINDOW)
    guest.place(5, WINDOW + SIZE)
    guest.config(5, BAR0, WINDOW)

    assert guest.read(WINDOW) == 0x1_0000
    assert guest.read(WINDOW + SIZE) == 0xFFFF_FFFF
    assert bus.bar(5) is None
    guest.config(5, BAR0, WINDOW + 0x2000)
    assert guest.read(WINDOW + 0x2000) == 0x2_0000


def test_a_bar_that_was_in_the_way_leaves_and_the_one_that_waited_answers(guest: Guest, bus: PciBus) -> None:
    """PCI 3.0, section 6.2.5.1: a BAR decodes where its register says, as soon as nothing else does."""
    guest.place(1, WINDOW)
    guest.place(5, WINDOW + SIZE)
    guest.config(1, BAR0, WINDOW + SIZE)
    in_the_way = guest.read(WINDOW + SIZE)
    guest.config(5, BAR0, WINDOW + 0x8000)

    assert in_the_way == 0x2_0000
    assert guest.read(WINDOW + SIZE) == 0x1_0000
    guest.write(WINDOW + SIZE + 4, 7)
    assert bus.endpoints[1].written == [(4, 4, 7)]  # type: ignore[attr-defined]


def test_a_bar_that_waited_gets_its_doorbells(window_host: RecordingHost) -> None:
    bus = made_bus()
    bus.attach(window_host)
    guest = Guest(bus)
    guest.place(1, WINDOW)
    guest.place(5, WINDOW)
    guest.config(1, COMMAND, 0)
    bus.detach()

    assert window_host.interrupts.log == [  # type: ignore[attr-defined]
        ("bind", WINDOW),
        ("close", 0),
        ("bind", WINDOW),
        ("close", 0),
    ]


@pytest.mark.parametrize("base", [WINDOW - SIZE, WINDOW + WINDOW_SIZE, 0xD000_0000, 0])
def test_a_bar_outside_the_window_claims_nothing_and_is_named(
    window_host: RecordingHost, quiet_log: LogLimit, caplog: pytest.LogCaptureFixture, base: int
) -> None:
    """Neither accesses nor doorbells: another device of the machine may be there."""
    bus = made_bus()
    bus.attach(window_host)
    guest = Guest(bus)
    guest.place(1, base)
    outside = bus.bar(1)
    guest.config(1, BAR0, WINDOW)
    bus.detach()

    assert outside is None
    assert f"outside the window MMIO [{WINDOW:#x}, {WINDOW + WINDOW_SIZE - 1:#x}]" in caplog.text
    assert "slot 1" in caplog.text
    assert window_host.interrupts.log == [("bind", WINDOW), ("close", 0)]  # type: ignore[attr-defined]
    assert guest.read(WINDOW) == 0x1_0000


def test_bars_have_addresses_in_the_window_before_anybody_places_them(window_host: RecordingHost) -> None:
    bus = made_bus()
    bus.attach(window_host)
    guest = Guest(bus)

    bars = [guest.config_read(slot, BAR0) for slot in (1, 5)]
    undecoded = guest.read(bars[0])
    guest.config(5, COMMAND, COMMAND_MEMORY)

    assert bars == [WINDOW, WINDOW + SIZE]
    assert (undecoded, guest.read(WINDOW + SIZE)) == (0xFFFF_FFFF, 0x2_0000)
    bus.detach()


def test_a_window_without_room_is_said(window_host: RecordingHost, caplog: pytest.LogCaptureFixture) -> None:
    window_host.ranges = (MmioRange(WINDOW, SIZE),)
    bus = made_bus()
    bus.attach(window_host)

    assert [Guest(bus).config_read(slot, BAR0) for slot in (1, 5)] == [WINDOW, 0]
    assert "no room for slot 5" in caplog.text
    bus.detach()


def test_another_owner_leaves_the_bars_where_the_guest_put_them(window_host: RecordingHost) -> None:
    bus = made_bus()
    bus.attach(window_host)
    guest = Guest(bus)
    guest.place(5, WINDOW)
    guest.place(1, WINDOW)
    state = bus.snapshot()
    bus.detach()
    successor = made_bus()
    successor.attach(window_host)
    successor.restore(state)

    assert (successor.bar(5), successor.bar(1)) == (WINDOW, None)
    successor.detach()


@pytest.mark.parametrize(("offset", "size"), [(SIZE - 2, 4), (SIZE - 1, 8)])
def test_an_access_past_the_bars_end_is_nobodys(guest: Guest, offset: int, size: int) -> None:
    guest.place(1, WINDOW)

    assert guest.read(WINDOW + offset, size) == (1 << 8 * size) - 1


@pytest.mark.parametrize("offset", [SIZE - 3, SIZE - 1])
def test_a_write_past_the_bars_end_is_nobodys(bus: PciBus, guest: Guest, offset: int) -> None:
    guest.place(1, WINDOW)
    guest.write(WINDOW + offset, 1)
    guest.write(WINDOW + SIZE - 4, 2)

    assert bus.endpoints[1].written == [(SIZE - 4, 4, 2)]  # type: ignore[attr-defined]


def test_doorbells_follow_the_bar(bus: PciBus) -> None:
    host = RecordingHost()
    host.interrupts = Interrupts()  # type: ignore[attr-defined]
    bus.attach(host)
    guest = Guest(bus)

    guest.place(1, WINDOW)
    guest.config(1, BAR0, WINDOW + 0x4000)
    guest.config(1, COMMAND, 0)
    guest.config(1, COMMAND, COMMAND_MEMORY)
    bus.detach()

    assert host.interrupts.log == [  # type: ignore[attr-defined]
        ("bind", WINDOW),
        ("move", WINDOW + 0x4000),
        ("close", 0),
        ("bind", WINDOW + 0x4000),
        ("close", 0),
    ]


def test_a_failed_attach_leaves_no_endpoint_attached() -> None:
    bus = PciBus()
    good, bad = Endpoint(1), Endpoint(2, fails=True)
    bus.add_endpoint(1, good)
    bus.add_endpoint(2, bad)

    with pytest.raises(RuntimeError, match="no luck"):
        bus.attach(RecordingHost())

    assert (good.attached, bad.attached) == (0, 0)


def test_another_owner_finds_the_bars_where_they_were(guest: Guest, bus: PciBus) -> None:
    guest.place(1, WINDOW + 0x3000)
    successor = made_bus()
    successor.attach(RecordingHost())

    successor.restore(bus.snapshot())

    assert successor.bar(1) == WINDOW + 0x3000
    assert Guest(successor).read(WINDOW + 0x3010) == 0x1_0010
    successor.detach()


@pytest.mark.parametrize(
    ("functions", "option"),
    [
        ([{"slot": 1}], "type"),
        ([{"type": "shardio.devices.virtio:Nothing"}], "type"),
        ([{"type": "no.such.module:Class"}], "type"),
        ([{"type": 7}], "type"),
        ([{"type": "shardio.devices.virtio:VirtioPciRng", "slot": 0}], "slot"),
        ([{"type": "shardio.devices.virtio:VirtioPciRng", "slot": 32}], "slot"),
        ([{"type": "shardio.devices.virtio:VirtioPciRng", "slot": 4}] * 2, "slot"),
    ],
)
def test_functions_that_cannot_be_are_refused(functions: list[dict[str, Any]], option: str) -> None:
    with pytest.raises(DeviceOptionError, match=f"PciBus cannot use {option}"):
        PciBus(functions=functions)


@given(
    st.lists(st.tuples(st.sampled_from([1, 5]), st.integers(0, 15), st.booleans()), min_size=1, max_size=20)
)
def test_bars_answer_as_a_model_says(moves: list[tuple[int, int, bool]]) -> None:
    """The model: a BAR that decodes answers where it is, unless another is there; then it waits."""
    bus = made_bus()
    bus.attach(RecordingHost())
    guest = Guest(bus)
    model: dict[int, int] = {}
    waiting: dict[int, int] = {}

    for slot, page, decodes in moves:
        guest.config(slot, COMMAND, 0)
        guest.config(slot, BAR0, WINDOW + page * SIZE)
        guest.config(slot, COMMAND, COMMAND_MEMORY * decodes)
        model.pop(slot, None)
        waiting.pop(slot, None)
        waiting |= {slot: page} if decodes else {}
        # The other one may have waited for the page that this one has left.
        for each, wanted in sorted(waiting.items(), key=lambda item: item[0] == slot):
            if wanted not in model.values():
                model[each] = waiting.pop(each)
        numbers = {page: {1: 1, 5: 2}[slot] for slot, page in model.items()}
        seen = {page: guest.read(WINDOW + page * SIZE) for page in range(16)}
        assert seen == {page: numbers[page] << 16 if page in numbers else 0xFFFF_FFFF for page in range(16)}
    bus.detach()
