"""`shardio.kvm.interrupt`: the calls that reach a VM, and the kernel's answer where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import pytest

from shardio.errors import InterruptError
from shardio.interrupt import InterruptManager, LegacyConfig, MsiConfig, MsixTable
from shardio.interrupt.msix import CONTROL_ENABLE
from shardio.kvm import GsiRoute, Kvm, MsiRoute, default_routes
from shardio.kvm.interrupt import FIRST_DYNAMIC_GSI, KvmBackend

MESSAGE = MsiConfig(0xFEE0_0000, 0x31)


class RecordingVm:
    """The two calls of `Vm` that the backend makes."""

    def __init__(self) -> None:
        self.bound: dict[int, tuple[int, int | None]] = {}
        self.routes: tuple[GsiRoute, ...] = ()

    def irqfd(self, fd: int, gsi: int, deassign: bool = False, resample_fd: int | None = None) -> None:
        if deassign:
            assert self.bound.pop(fd)[0] == gsi
        else:
            self.bound[fd] = (gsi, resample_fd)

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


def test_a_split_irqchip_has_messages_only(vm: RecordingVm) -> None:
    backend = KvmBackend(vm, split=True)  # type: ignore[arg-type]
    with pytest.raises(InterruptError, match="split irqchip"):
        backend.allocate(4)
    InterruptManager(backend).message(MESSAGE)
    backend.close()

    assert [type(route) for route in vm.routes] == [MsiRoute]


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
