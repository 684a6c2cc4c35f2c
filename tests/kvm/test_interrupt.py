"""`shardio.kvm.interrupt`: the calls that reach a VM, and the kernel's answer where there is one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import pytest

from shardio._core import lib
from shardio.errors import InterruptError
from shardio.interrupt import InterruptManager, LegacyConfig, MsiConfig, MsixTable
from shardio.interrupt.backend import FALL, RISE
from shardio.interrupt.msix import CONTROL_ENABLE
from shardio.kvm import GsiRoute, Kvm, MsiRoute, default_routes
from shardio.kvm.interrupt import FIRST_DYNAMIC_GSI, KvmBackend

MESSAGE = MsiConfig(0xFEE0_0000, 0x31)


class RecordingVm:
    """The two calls of `Vm` that the backend makes."""

    def __init__(self) -> None:
        self.bound: dict[int, tuple[int, int | None]] = {}
        self.routes: tuple[GsiRoute, ...] = ()
        self.levels: list[tuple[int, int]] = []

    def irqfd(self, fd: int, gsi: int, deassign: bool = False, resample_fd: int | None = None) -> None:
        if deassign:
            assert self.bound.pop(fd)[0] == gsi
        else:
            self.bound[fd] = (gsi, resample_fd)

    def irq_line(self, gsi: int, level: int) -> None:
        self.levels.append((gsi, level))

    def set_gsi_routing(self, routes: Iterable[GsiRoute]) -> None:
        self.routes = tuple(routes)


@pytest.fixture
def vm() -> RecordingVm:
    return RecordingVm()


@pytest.fixture
def backend(vm: RecordingVm) -> Iterator[KvmBackend]:
    backend = KvmBackend(vm)  # type: ignore[arg-type]
    yield backend
    backend.close()
    assert vm.bound == {}


def test_a_line_is_bound_when_enabled(backend: KvmBackend, vm: RecordingVm) -> None:
    edge = InterruptManager(backend).edge(LegacyConfig(4))
    before = dict(vm.bound)
    edge.enable()

    assert before == {}
    assert list(vm.bound.values()) == [(4, None)]


def test_a_level_line_has_a_resample_fd(backend: KvmBackend, vm: RecordingVm) -> None:
    level = InterruptManager(backend).level(LegacyConfig(11))
    level.enable()

    assert list(vm.bound.values()) == [(11, level.resample_fd)]


def test_disable_unbinds(backend: KvmBackend, vm: RecordingVm) -> None:
    edge = InterruptManager(backend).edge(LegacyConfig(4))
    edge.enable()
    edge.disable()

    assert vm.bound == {}


def test_a_message_joins_the_default_routes(backend: KvmBackend, vm: RecordingVm) -> None:
    InterruptManager(backend).message(MESSAGE)

    assert vm.routes == (*default_routes(), MsiRoute(FIRST_DYNAMIC_GSI, MESSAGE.address, MESSAGE.data, None))


def test_a_freed_gsi_leaves_the_table_and_comes_back(backend: KvmBackend, vm: RecordingVm) -> None:
    interrupts = InterruptManager(backend)
    interrupts.message(MESSAGE).free()
    again = interrupts.message(MsiConfig(0xFEE0_0000, 0x32))

    assert again.gsi == FIRST_DYNAMIC_GSI
    assert [route.data for route in vm.routes if isinstance(route, MsiRoute)] == [0x32]


@pytest.mark.parametrize("gsi", [-1, FIRST_DYNAMIC_GSI])
def test_a_line_that_the_controller_lacks_is_refused(backend: KvmBackend, gsi: int) -> None:
    with pytest.raises(InterruptError, match="no such line"):
        backend.allocate(gsi)


def test_a_level_message_is_refused(backend: KvmBackend) -> None:
    with pytest.raises(InterruptError, match="messages are edges"):
        backend.allocate(None, level=True)


def test_a_line_carries_no_message(backend: KvmBackend) -> None:
    with pytest.raises(InterruptError, match="carries no message"):
        InterruptManager(backend).edge(LegacyConfig(4)).configure(MESSAGE)


class Watcher:
    """Who watches eventfds, is told of lines, and follows some."""

    def __init__(self, backend: KvmBackend) -> None:
        self.watched: dict[int, Callable[[], None]] = {}
        self.told: list[int] = []
        self.followed: list[int] = []
        backend.connect_to(
            self.watched.__setitem__, self.watched.__delitem__, self.told.append, self.followed.append
        )

    def ring(self, fd: int, moves: int) -> None:
        os.eventfd_write(fd, moves)
        self.watched[fd]()


def test_a_followed_line_is_watched_and_no_irqfd(backend: KvmBackend, vm: RecordingVm) -> None:
    watcher = Watcher(backend)
    irqfd = backend.allocate(5, level=True, followed=True)
    backend.connect(irqfd.handle)
    watched = set(watcher.watched)
    backend.free(irqfd.handle)

    assert (watched, irqfd.resample_fd, vm.bound) == ({irqfd.fd}, None, {})
    assert watcher.watched == {}


@pytest.mark.parametrize(
    ("moves", "told"), [(FALL, 0), (RISE, 1 << 5), (FALL + RISE, 1 << 5), (2 * RISE + 2 * FALL, 1 << 5)]
)
def test_a_rise_of_a_followed_line_is_an_edge(backend: KvmBackend, moves: int, told: int) -> None:
    watcher = Watcher(backend)
    irqfd = backend.allocate(5, level=True, followed=True)
    backend.connect(irqfd.handle)
    watcher.ring(irqfd.fd, moves)

    assert watcher.told == [lib.SIO_LINE_MOVED | told]


def test_a_line_is_followed_while_somebody_wants_it_and_low_afterwards(
    backend: KvmBackend, vm: RecordingVm
) -> None:
    watcher = Watcher(backend)
    one, other = (backend.allocate(5, level=True, followed=True) for _ in range(2))
    for irqfd in (one, other):
        backend.connect(irqfd.handle)
    backend.disconnect(one.handle)
    before = list(vm.levels)
    backend.free(other.handle)

    assert watcher.followed == [1 << 5, 1 << 5, 1 << 5, 0]
    assert (before, vm.levels) == ([], [(5, 0)])


def test_a_followed_edge_is_an_edge(backend: KvmBackend) -> None:
    irqfd = backend.allocate(5, followed=True)
    backend.connect(irqfd.handle)

    assert backend.followed == 0


@pytest.mark.kvm
def test_the_kernel_takes_lines_levels_and_messages() -> None:
    with Kvm() as kvm, kvm.create_vm() as vm:
        vm.create_irqchip()
        backend = KvmBackend(vm)
        interrupts = InterruptManager(backend)
        edge, first, second = (
            interrupts.edge(LegacyConfig(4)),
            interrupts.level(LegacyConfig(11)),
            interrupts.level(LegacyConfig(11)),
        )
        table = MsixTable(interrupts.group(3))
        table.write_control(CONTROL_ENABLE)
        for interrupt in (edge, first, second):
            interrupt.enable()
            interrupt.trigger()
        interrupts.close()
        backend.close()

        with pytest.raises(OSError, match="Bad file descriptor"):
            os.eventfd_read(first.resample_fd)
