"""Which delivery modes a shard's messages may have, and how much of the routes one shard may take."""

from __future__ import annotations

import pytest

from shardio.device import MutDeviceMmio
from shardio.dispatcher.arguments import device_request
from shardio.errors import MachineError
from shardio.interrupt import MsiConfig, RecordingBackend
from shardio.interrupt.config import MAX_GSI, MESSAGE_MODES
from shardio.interrupt.messages import Allocate, Allocated, Done, Refused, Reply, SetRoute
from shardio.interrupt.server import DEFAULT_LIMIT, X86, InterruptServer
from shardio.interrupt.wires import LINES

on_x86 = pytest.mark.skipif(not X86, reason="delivery modes are in x86 messages alone")


def answer(mode: int, backend: RecordingBackend, *declared: str) -> Reply:
    """To a route of a message with that delivery mode (data bits 8 to 10, Intel SDM volume 3, 11.11.2)."""
    server = InterruptServer(backend, modes=lambda: declared)
    allocated, _ = server.handle(Allocate(None))
    assert isinstance(allocated, Allocated)
    reply, _ = server.handle(SetRoute(allocated.handle, MsiConfig(0xFEE0_0000, mode << 8 | 0x31)))
    server.close()
    return reply


@pytest.mark.parametrize("mode", [0, 1])
def test_fixed_and_lowest_priority_are_everyone_s(mode: int, backend: RecordingBackend) -> None:
    assert answer(mode, backend) == Done()


@on_x86
@pytest.mark.parametrize("mode", range(2, 8))
def test_another_mode_is_refused_by_name(mode: int, backend: RecordingBackend) -> None:
    reply = answer(mode, backend)

    assert isinstance(reply, Refused)
    assert MESSAGE_MODES[mode] in reply.reason
    assert f'message_modes = ("{MESSAGE_MODES[mode]}",)' in reply.hint


@pytest.mark.parametrize("mode", range(2, 8))
def test_a_mode_that_is_declared_is_allowed(mode: int, backend: RecordingBackend) -> None:
    assert answer(mode, backend, MESSAGE_MODES[mode]) == Done()


def test_one_shard_leaves_a_quarter_of_the_routes_to_the_others() -> None:
    assert DEFAULT_LIMIT <= (MAX_GSI + 1) * 3 // 4
    assert MAX_GSI + 1 - LINES - DEFAULT_LIMIT >= 1000


def test_the_modes_of_a_class_are_checked() -> None:
    class Good(MutDeviceMmio):
        message_modes = ("nmi",)

        def read(self, offset: int, size: int) -> int:
            return 0

    class Bad(Good):
        message_modes = ("nmi", "loud")

    assert device_request(Good, mmio=0xD000_0000, size=16).message_modes == ("nmi",)
    with pytest.raises(MachineError, match="message_modes of 'loud'"):
        device_request(Bad, mmio=0xD000_0000, size=16)
