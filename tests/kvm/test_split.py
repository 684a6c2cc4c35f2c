"""`shardio.kvm.split`: messages in the kernel, lines to controllers that are devices."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import pytest

from shardio._core import lib
from shardio.errors import InterruptError
from shardio.interrupt import MsiConfig
from shardio.interrupt.backend import FALL, RISE
from shardio.interrupt.config import EXTINT
from shardio.kvm import GsiRoute, Kvm, MsiRoute
from shardio.kvm.split import SplitBackend
from shardio.kvm.vm import SPLIT_PINS

MESSAGE = MsiConfig(0xFEE0_0000, 0x31)
LEVEL_MESSAGE = MsiConfig(0xFEE0_0000, 0xC031)
BOTH = lib.SIO_WIRED_PIC | lib.SIO_WIRED_IOAPIC


class RecordingVm:
    """The two calls of `Vm` that the backend makes."""

    def __init__(self) -> None:
        self.bound: dict[int, int] = {}
        self.routes: tuple[GsiRoute, ...] = ()

    def irqfd(self, fd: int, gsi: int, deassign: bool = False, resample_fd: int | None = None) -> None:
        if deassign:
            assert self.bound.pop(fd) == gsi
        else:
            self.bound[fd] = gsi

    def set_gsi_routing(self, routes: Iterable[GsiRoute]) -> None:
        self.routes = tuple(routes)


class Machine:
    """Who watches eventfds, and is told of lines."""

    def __init__(self) -> None:
        self.watched: dict[int, Callable[[], None]] = {}
        self.told: list[int] = []

    def ring(self, fd: int, moves: int = 1) -> None:
        os.eventfd_write(fd, moves)
        self.watched[fd]()


@pytest.fixture
def vm() -> RecordingVm:
    return RecordingVm()


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def backend(vm: RecordingVm, machine: Machine) -> Iterator[SplitBackend]:
    backend = SplitBackend(vm)  # type: ignore[arg-type]
    backend.controllers = BOTH
    backend.connect_to(machine.watched.__setitem__, machine.watched.__delitem__, machine.told.append, int)
    yield backend
    backend.close()
    assert (vm.bound, machine.watched) == ({}, {})


def connected(backend: SplitBackend, gsi: int, level: bool = False) -> int:
    irqfd = backend.allocate(gsi, level=level)
    backend.connect(irqfd.handle)
    return irqfd.fd


def test_there_are_no_lines_without_controllers(backend: SplitBackend) -> None:
    backend.controllers = 0
    with pytest.raises(InterruptError, match="no lines without controllers"):
        backend.allocate(4)


@pytest.mark.parametrize("gsi", [24, 254, 256, -1])
def test_a_line_that_the_controllers_lack_is_refused(backend: SplitBackend, gsi: int) -> None:
    with pytest.raises(InterruptError, match="no such line"):
        backend.allocate(gsi)


def test_the_output_of_a_pic_is_a_level(backend: SplitBackend) -> None:
    with pytest.raises(InterruptError, match="no such line"):
        backend.allocate(EXTINT)


def test_an_edge_line_is_told_of_as_an_edge(backend: SplitBackend, machine: Machine) -> None:
    machine.ring(connected(backend, 4), 3)

    assert machine.told == [1 << 4]


def test_a_level_line_is_told_of_as_moved(backend: SplitBackend, machine: Machine) -> None:
    machine.ring(connected(backend, 10, level=True), FALL)

    assert machine.told == [lib.SIO_LINE_MOVED]


@pytest.mark.parametrize("moves", [RISE, RISE + FALL])
def test_a_rise_of_a_level_line_is_an_edge(backend: SplitBackend, machine: Machine, moves: int) -> None:
    machine.ring(connected(backend, 10, level=True), moves)

    assert machine.told == [lib.SIO_LINE_MOVED | 1 << 10]


def test_the_pics_output_is_told_of_by_itself(backend: SplitBackend, machine: Machine) -> None:
    machine.ring(connected(backend, EXTINT, level=True), RISE)

    assert machine.told == [lib.SIO_LINE_OUTPUT_MOVED]


def test_a_line_that_nobody_rang_tells_nothing(backend: SplitBackend, machine: Machine) -> None:
    fd = connected(backend, 4)
    machine.watched[fd]()

    assert machine.told == []


def test_a_level_line_has_no_resample_fd(backend: SplitBackend) -> None:
    assert backend.allocate(10, level=True).resample_fd is None


def test_lines_are_not_bound_in_the_kernel(backend: SplitBackend, vm: RecordingVm) -> None:
    connected(backend, 4)

    assert vm.bound == {}


def test_a_disconnected_line_is_not_watched(backend: SplitBackend, machine: Machine) -> None:
    irqfd = backend.allocate(4)
    backend.connect(irqfd.handle)
    backend.disconnect(irqfd.handle)
    backend.disconnect(irqfd.handle)

    assert machine.watched == {}


def test_a_line_carries_no_message(backend: SplitBackend) -> None:
    irqfd = backend.allocate(4)
    with pytest.raises(InterruptError, match="carries no message"):
        backend.set_route(irqfd.handle, MESSAGE)


def test_the_table_holds_messages_alone(backend: SplitBackend, vm: RecordingVm) -> None:
    irqfd = backend.allocate(None)
    backend.set_route(irqfd.handle, MESSAGE)

    assert vm.routes == (MsiRoute(SPLIT_PINS, MESSAGE.address, MESSAGE.data, None),)


def test_a_level_message_goes_where_the_kernel_looks_for_it(backend: SplitBackend, vm: RecordingVm) -> None:
    irqfd = backend.allocate(None)
    backend.set_route(irqfd.handle, LEVEL_MESSAGE)
    backend.connect(irqfd.handle)

    assert vm.routes == (MsiRoute(0, LEVEL_MESSAGE.address, LEVEL_MESSAGE.data, None),)
    assert vm.bound == {irqfd.fd: 0}


def test_a_connected_message_that_becomes_level_goes_there(backend: SplitBackend, vm: RecordingVm) -> None:
    irqfd = backend.allocate(None)
    backend.set_route(irqfd.handle, MESSAGE)
    backend.connect(irqfd.handle)
    backend.set_route(irqfd.handle, LEVEL_MESSAGE)

    assert vm.routes == (MsiRoute(0, LEVEL_MESSAGE.address, LEVEL_MESSAGE.data, None),)
    assert vm.bound == {irqfd.fd: 0}


def test_its_gsi_comes_back(backend: SplitBackend, vm: RecordingVm) -> None:
    irqfd = backend.allocate(None)
    backend.set_route(irqfd.handle, LEVEL_MESSAGE)
    backend.free(irqfd.handle)
    again = backend.allocate(None)
    backend.set_route(again.handle, LEVEL_MESSAGE)

    assert [route.gsi for route in vm.routes] == [0]
    assert again.gsi == SPLIT_PINS


def test_level_messages_are_limited(backend: SplitBackend) -> None:
    backend._free_pins.clear()
    irqfd = backend.allocate(None)
    with pytest.raises(InterruptError, match="255 level messages"):
        backend.set_route(irqfd.handle, LEVEL_MESSAGE)


@pytest.mark.kvm
def test_the_kernel_takes_messages_of_both_kinds() -> None:
    with Kvm() as kvm, kvm.create_vm() as vm:
        vm.create_split_irqchip()
        backend = SplitBackend(vm)
        for message in (MESSAGE, LEVEL_MESSAGE):
            irqfd = backend.allocate(None)
            backend.set_route(irqfd.handle, message)
            backend.connect(irqfd.handle)
        backend.close()
