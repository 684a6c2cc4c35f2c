"""The control queue of virtio-net (virtio 1.2 section 5.1.6.5): what is received, and the address."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.devices.virtio import Net, VirtioMmio, VirtioPciNet, mmio
from shardio.devices.virtio.link import SocketLink
from shardio.devices.virtio.mmio import MmioState
from shardio.devices.virtio.net import CONTROL
from shardio.devices.virtio.net_control import (
    CLASS_MAC,
    CLASS_RX,
    F_CTRL_MAC_ADDR,
    F_CTRL_RX,
    F_CTRL_RX_EXTRA,
    F_CTRL_VQ,
    FEATURES,
    MAC_ADDR_SET,
    MAC_TABLE_SET,
    MODES,
    TABLE_LIMIT,
    ReceiveFilter,
)
from tests.devices.virtio.guest import NEEDS_RESET, Host, MmioGuest, run, started

MAC = bytes.fromhex("525400123456")
OTHER = bytes.fromhex("525400000099")
GROUP = bytes.fromhex("01005e000001")
BROADCAST = b"\xff" * 6
OK, ERROR = b"\0", b"\1"
ADDRESSES = (MAC, OTHER, GROUP, bytes.fromhex("333300000001"), BROADCAST)


def table(unicast: Sequence[bytes] = (), multicast: Sequence[bytes] = ()) -> bytes:
    """The data of VIRTIO_NET_CTRL_MAC_TABLE_SET."""
    return b"".join(struct.pack("<I", len(some)) + b"".join(some) for some in (unicast, multicast))


def received(asked: ReceiveFilter) -> list[bytes]:
    return [to for to in ADDRESSES if asked.accepts(to + bytes(60))]


# ---- the filter ----


def test_until_the_driver_says_what_it_wants_it_receives_everything() -> None:
    assert received(ReceiveFilter(MAC)) == list(ADDRESSES)


def filtering() -> ReceiveFilter:
    """One whose driver has switched promiscuous mode off."""
    asked = ReceiveFilter(MAC)
    assert asked.command(CLASS_RX, MODES.index("promiscuous"), b"\0", FEATURES)
    return asked


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("promiscuous", list(ADDRESSES)),
        ("all_multicast", [MAC, GROUP, ADDRESSES[3], BROADCAST]),
        ("all_unicast", [MAC, OTHER, BROADCAST]),
        ("no_multicast", [MAC, BROADCAST]),
        ("no_unicast", [BROADCAST]),
        ("no_broadcast", [MAC]),
    ],
)
def test_each_mode_is_switched_on_and_off(mode: str, expected: list[bytes]) -> None:
    asked = filtering()
    before = received(asked)
    asked.command(CLASS_RX, MODES.index(mode), b"\1", FEATURES)
    during = received(asked)
    asked.command(CLASS_RX, MODES.index(mode), b"\0", FEATURES)

    assert (before, during, received(asked)) == ([MAC, BROADCAST], expected, [MAC, BROADCAST])


def test_a_table_adds_addresses_and_replaces_the_table_before() -> None:
    asked = filtering()
    asked.command(CLASS_MAC, MAC_TABLE_SET, table([OTHER], [GROUP]), FEATURES)
    with_both = received(asked)
    asked.command(CLASS_MAC, MAC_TABLE_SET, table(), FEATURES)

    assert (with_both, received(asked)) == ([MAC, OTHER, GROUP, BROADCAST], [MAC, BROADCAST])


def test_a_table_with_more_than_there_is_room_for_lets_all_of_the_kind_through() -> None:
    many = [b"\x01\x00" + n.to_bytes(4, "big") for n in range(TABLE_LIMIT + 1)]
    asked = filtering()

    assert asked.command(CLASS_MAC, MAC_TABLE_SET, table([], many), FEATURES)
    assert received(asked) == [MAC, GROUP, ADDRESSES[3], BROADCAST]


def test_the_address_that_the_driver_gives_itself_replaces_the_other() -> None:
    asked = filtering()

    assert asked.command(CLASS_MAC, MAC_ADDR_SET, OTHER, FEATURES)
    assert received(asked) == [OTHER, BROADCAST]
    asked.reset()
    assert asked.state.mac == MAC


@pytest.mark.parametrize(
    ("kind", "number", "data"),
    [
        (CLASS_RX, len(MODES), b"\1"),
        (CLASS_RX, 0, b""),
        (CLASS_RX, 0, b"\1\1"),
        (CLASS_MAC, 2, b""),
        (CLASS_MAC, MAC_ADDR_SET, OTHER[:5]),
        (CLASS_MAC, MAC_ADDR_SET, OTHER + b"\0"),
        (CLASS_MAC, MAC_ADDR_SET, GROUP),
        (CLASS_MAC, MAC_TABLE_SET, b""),
        (CLASS_MAC, MAC_TABLE_SET, table([OTHER], [GROUP])[:-1]),
        (CLASS_MAC, MAC_TABLE_SET, table([OTHER], [GROUP]) + b"\0"),
        (CLASS_MAC, MAC_TABLE_SET, b"\xff\xff\xff\xff" + OTHER),
        (4, 0, b"\0\0"),
        (0xFF, 0xFF, b""),
    ],
)
def test_a_command_that_cannot_be_changes_nothing(kind: int, number: int, data: bytes) -> None:
    asked = filtering()
    before = msgspec.msgpack.encode(asked.state)

    assert not asked.command(kind, number, data, FEATURES)
    assert msgspec.msgpack.encode(asked.state) == before


@pytest.mark.parametrize(
    ("without", "kind", "number", "data"),
    [
        (F_CTRL_VQ, CLASS_RX, 0, b"\0"),
        (F_CTRL_RX, CLASS_RX, 0, b"\0"),
        (F_CTRL_RX, CLASS_MAC, MAC_TABLE_SET, table()),
        (F_CTRL_RX_EXTRA, CLASS_RX, 2, b"\1"),
        (F_CTRL_MAC_ADDR, CLASS_MAC, MAC_ADDR_SET, OTHER),
    ],
)
def test_a_command_whose_feature_was_not_negotiated_is_refused(
    without: int, kind: int, number: int, data: bytes
) -> None:
    assert not filtering().command(kind, number, data, FEATURES & ~without)


@given(st.binary(max_size=40), st.integers(0, 5), st.integers(0, 3))
def test_whatever_is_commanded_is_done_or_refused(data: bytes, kind: int, number: int) -> None:
    asked = filtering()
    done = asked.command(kind, number, data, FEATURES)

    assert done in (True, False)
    assert received(asked) is not None


# ---- in the device ----


@asynccontextmanager
async def interface(**how: int) -> AsyncIterator[tuple[MmioGuest, socket.socket]]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with far:
        far.setblocking(False)
        async with started(VirtioMmio(Net(SocketLink(near), "52:54:00:12:34:56")), MmioGuest, **how) as guest:
            yield guest, far


def command(guest: MmioGuest, kind: int, number: int, *data: bytes) -> bytes:
    """The status that a command comes back with."""
    guest.queues[CONTROL].add([bytes([kind, number]), *data], [1])
    guest.notify(CONTROL)
    [(_, written, content)] = guest.queues[CONTROL].collect()
    return content[:written]


def test_frames_for_others_are_left_out_once_the_driver_asked_so() -> None:
    async def test() -> None:
        async with interface() as (guest, far):
            assert command(guest, CLASS_RX, 0, b"\0") == OK
            for _ in range(2):
                guest.queues[0].add(writable=[256])
            guest.notify(0)
            for to in (OTHER, GROUP, MAC, BROADCAST):
                far.send(to + bytes(60))
            done = await guest.collected(0, 2)
            assert [content[12:18] for _, _, content in done] == [MAC, BROADCAST]
            assert guest.device.virtio.unwanted == 2  # type: ignore[attr-defined]

    run(test)


def test_the_address_is_in_the_configuration_before_the_command_comes_back() -> None:
    """Section 5.1.6.5.2.2; a reset gives the first one back."""

    async def test() -> None:
        async with interface() as (guest, _):
            def address() -> bytes:
                return bytes(guest.device.read(mmio.CONFIG + at, 1) for at in range(6))

            before = address()
            status, during = command(guest, CLASS_MAC, MAC_ADDR_SET, OTHER), address()
            guest.set(mmio.STATUS, 0)
            assert (before, status, during, address()) == (MAC, OK, OTHER, MAC)

    run(test)


def test_a_refused_command_says_so() -> None:
    async def test() -> None:
        async with interface() as (guest, _):
            assert command(guest, CLASS_MAC, MAC_ADDR_SET, GROUP) == ERROR
            assert command(guest, CLASS_MAC, MAC_TABLE_SET, bytes(70_000)) == ERROR
            assert command(guest, CLASS_RX, 0, b"", b"\0", b"") == OK

    run(test)


@pytest.mark.parametrize(("readable", "writable"), [([b"\0"], [1]), ([b"\0\0\0"], [])])
def test_a_command_without_header_or_status_needs_a_reset(readable: list[bytes], writable: list[int]) -> None:
    async def test() -> None:
        async with interface() as (guest, _):
            guest.queues[CONTROL].add(readable, writable)
            guest.notify(CONTROL)
            assert guest.status & NEEDS_RESET

    run(test)


def test_what_was_commanded_goes_on_in_another_owner() -> None:
    async def test() -> None:
        async with interface() as (guest, far):
            command(guest, CLASS_RX, 0, b"\0")
            command(guest, CLASS_MAC, MAC_ADDR_SET, OTHER)
            command(guest, CLASS_MAC, MAC_TABLE_SET, table([], [GROUP]))
            packed = msgspec.msgpack.encode(guest.device.snapshot())
            successor = VirtioMmio(Net(SocketLink(far.dup())))
            successor.attach(Host(guest.memory, asyncio.get_running_loop()))
            successor.restore(msgspec.msgpack.decode(packed, type=MmioState))
            state = successor.virtio._filter.state  # type: ignore[attr-defined]
            assert received(successor.virtio._filter) == [OTHER, GROUP, BROADCAST]  # type: ignore[attr-defined]
            assert state == guest.device.virtio._filter.state  # type: ignore[attr-defined]
            successor.detach()

    run(test)


def test_on_pci_the_control_queue_has_a_vector_of_its_own() -> None:
    device = VirtioPciNet(local="@shardio-test-c", peer="@shardio-test-d")
    try:
        assert [bell.offset for bell in device.doorbells] == [0x1000, 0x1004, 0x1008]
        assert device.common.read(0x12, 2) == 3  # num_queues
        assert device.read_msix_control() & 0x7FF == 3  # one less than its vectors
    finally:
        device.virtio.detach()
