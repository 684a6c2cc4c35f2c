"""`shardio.kvm.doorbell` through the proxy and the server of a shard: what reaches the VM, and a ring
that comes back.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from shardio.errors import InterruptError, KvmError
from shardio.interrupt import Doorbell, DoorbellSet, RecordingBackend
from shardio.interrupt.messages import BindDoorbell, Bound, Refused, UnbindDoorbell
from shardio.interrupt.proxy import ProxyBackend
from shardio.interrupt.server import InterruptServer
from shardio.kvm import Kvm
from shardio.kvm.doorbell import KvmDoorbells
from tests.interrupt.support import shard_of

BASE = 0xD000_0000
QUEUES = (Doorbell(0x50, 4, 0), Doorbell(0x50, 4, 1))


class RecordingVm:
    """The one call of `Vm` that doorbells make."""

    def __init__(self) -> None:
        self.claims: dict[tuple[int, int, bool, int | None], int] = {}

    def ioeventfd(
        self, fd: int, addr: int, length: int, pio: bool, datamatch: int | None = None, deassign: bool = False
    ) -> None:
        key = (addr, length, pio, datamatch)
        if deassign:
            assert self.claims.pop(key) == fd
        else:
            assert key not in self.claims
            self.claims[key] = fd


class Device:
    """Remembers which of its doorbells rang."""

    def __init__(self) -> None:
        self.doorbells = QUEUES
        self.rung: list[int] = []

    def doorbell(self, index: int) -> None:
        self.rung.append(index)


@pytest.fixture
def vm() -> RecordingVm:
    return RecordingVm()


@pytest.fixture
def proxy(vm: RecordingVm) -> Iterator[ProxyBackend]:
    doorbells = KvmDoorbells(vm)  # type: ignore[arg-type]
    with RecordingBackend() as backend:
        server = InterruptServer(
            backend, doorbells=doorbells, owns=lambda address, pio: address >= BASE and not pio
        )
        with shard_of(server) as proxy:
            yield proxy
    assert vm.claims == {}, "the shard is gone: its doorbells must be too"


def test_a_ring_calls_the_device(proxy: ProxyBackend, vm: RecordingVm) -> None:
    async def test() -> None:
        device = Device()
        bells = DoorbellSet(device, BASE, proxy, asyncio.get_running_loop())
        os.eventfd_write(vm.claims[BASE + 0x50, 4, False, 1], 3)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (device.rung, bells.bound) == ([1], 2)
        bells.close()

    asyncio.run(test())


def test_a_move_delivers_what_was_rung_and_binds_anew(proxy: ProxyBackend, vm: RecordingVm) -> None:
    async def test() -> None:
        device = Device()
        bells = DoorbellSet(device, BASE, proxy, asyncio.get_running_loop())
        os.eventfd_write(vm.claims[BASE + 0x50, 4, False, 0], 1)
        bells.move(BASE + 0x1000)
        assert device.rung == [0]
        assert {address for address, *_ in vm.claims} == {BASE + 0x1050}
        bells.close()
        bells.close()

    asyncio.run(test())


def test_a_refused_doorbell_stays_an_ordinary_write(proxy: ProxyBackend) -> None:
    async def test() -> None:
        bells = DoorbellSet(Device(), 0x1000, proxy, asyncio.get_running_loop())
        assert bells.bound == 0

    asyncio.run(test())


def test_what_was_not_closed_goes_with_the_shard(proxy: ProxyBackend, vm: RecordingVm) -> None:
    proxy.bind_doorbell(BASE, Doorbell(0, 2), pio=False)

    assert len(vm.claims) == 1


def test_a_machine_without_doorbells_refuses() -> None:
    with RecordingBackend() as backend:
        reply, fds = InterruptServer(backend).handle(BindDoorbell(BASE, 4))

    assert isinstance(reply, Refused)
    assert fds == []


@pytest.mark.parametrize(
    "request_", [UnbindDoorbell(9), BindDoorbell(BASE, 3), BindDoorbell(BASE, 2, 1 << 16)]
)
def test_a_hostile_request_is_refused(vm: RecordingVm, request_: BindDoorbell | UnbindDoorbell) -> None:
    with RecordingBackend() as backend:
        doorbells = KvmDoorbells(vm)  # type: ignore[arg-type]
        reply, _ = InterruptServer(backend, doorbells=doorbells).handle(request_)

    assert isinstance(reply, Refused)


def test_a_doorbell_is_unbound_once(vm: RecordingVm) -> None:
    with pytest.raises(InterruptError, match="once"):
        KvmDoorbells(vm).unbind_doorbell(1)  # type: ignore[arg-type]


@pytest.mark.kvm
def test_the_kernel_takes_every_queue_and_refuses_a_second_claim() -> None:
    with Kvm() as kvm, kvm.create_vm() as vm:
        doorbells = KvmDoorbells(vm)
        for queue in QUEUES:
            doorbells.bind_doorbell(BASE + queue.offset, queue, pio=False)
        doorbells.bind_doorbell(0xE0, Doorbell(0, 1, 7), pio=True)
        with pytest.raises(KvmError, match="EEXIST"):
            doorbells.bind_doorbell(BASE + 0x50, QUEUES[0], pio=False)
        doorbells.close()
        doorbells.bind_doorbell(BASE + 0x50, QUEUES[0], pio=False)
        doorbells.close()


def test_a_shard_holds_a_bounded_number_of_doorbells(vm: RecordingVm) -> None:
    doorbells = KvmDoorbells(vm)  # type: ignore[arg-type]
    server = InterruptServer(None, limit=1, doorbells=doorbells)
    replies = [server.handle(BindDoorbell(BASE + 2 * n, 2))[0] for n in range(2)]
    server.close()

    assert [type(reply) for reply in replies] == [Bound, Refused]
    assert vm.claims == {}
