"""`shardio.devices.virtio.net` and `link`: frames between a driver and the host's side."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shardio.devices.virtio import BackendError, Net, VirtioError, VirtioMmio, VirtioMmioNet
from shardio.devices.virtio.link import SocketLink, TapLink
from shardio.devices.virtio.net import F_MRG_RXBUF, HEADER_SIZE, parse_mac
from tests.devices.virtio.guest import MmioGuest, run, started, until

RECEIVE, TRANSMIT = 0, 1
HEADER = bytes(HEADER_SIZE)
RECEIVED_HEADER = bytes(10) + b"\x01\x00"


@asynccontextmanager
async def pair(without: int = 0) -> AsyncIterator[tuple[MmioGuest, MmioGuest]]:
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left, right = (VirtioMmio(Net(SocketLink(end))) for end in ends)
    how = {"without": without}
    async with started(left, MmioGuest, **how) as one, started(right, MmioGuest, **how) as other:
        yield one, other


def test_a_frame_goes_from_guest_to_guest() -> None:
    async def test() -> None:
        async with pair() as (one, other):
            other.queues[RECEIVE].add(writable=[2048])
            other.notify(RECEIVE)
            one.queues[TRANSMIT].add([HEADER, b"frame" * 20])
            one.notify(TRANSMIT)
            [(_, written, content)] = await other.collected(RECEIVE, 1)
            assert content[:written] == RECEIVED_HEADER + b"frame" * 20
            assert len(await one.collected(TRANSMIT, 1)) == 1

    run(test)


def test_frames_wait_in_the_link_while_the_driver_has_no_buffer() -> None:
    async def test() -> None:
        async with pair() as (one, other):
            for number in range(3):
                one.queues[TRANSMIT].add([HEADER + bytes([number]) * 60])
            one.notify(TRANSMIT)
            await one.collected(TRANSMIT, 3)
            await asyncio.sleep(0)
            for _ in range(3):
                other.queues[RECEIVE].add(writable=[128])
            other.notify(RECEIVE)
            done = await other.collected(RECEIVE, 3)
            assert [content[12] for _, _, content in done] == [0, 1, 2]

    run(test)


def test_many_frames_arrive_in_order_through_a_link_that_fills() -> None:
    async def test() -> None:
        async with pair() as (one, other):
            received: list[int] = []
            sent = 0

            def send() -> None:
                nonlocal sent
                one.queues[TRANSMIT].collect()
                while one.queues[TRANSMIT].free and sent < 200:
                    one.queues[TRANSMIT].add([HEADER + bytes([sent]) * 9000])
                    sent += 1
                one.notify(TRANSMIT)

            def link_is_full() -> bool:
                send()
                return one.device.virtio._sending is not None  # type: ignore[attr-defined]

            def all_received() -> bool:
                send()
                received.extend(content[12] for _, _, content in other.queues[RECEIVE].collect())
                while other.queues[RECEIVE].free:
                    other.queues[RECEIVE].add(writable=[9100])
                other.notify(RECEIVE)
                return len(received) == 200

            await until(link_is_full)
            await until(all_received)
            assert received == list(range(200))

    run(test)


def test_a_frame_longer_than_the_buffer_is_dropped() -> None:
    async def test() -> None:
        async with pair(without=F_MRG_RXBUF) as (one, other):
            other.queues[RECEIVE].add(writable=[64])
            other.notify(RECEIVE)
            for size in (100, 40):
                one.queues[TRANSMIT].add([HEADER, bytes(size)])
            one.notify(TRANSMIT)
            [(_, written, _)] = await other.collected(RECEIVE, 1)
            assert written == HEADER_SIZE + 40
            assert other.device.virtio.dropped == 1  # type: ignore[attr-defined]

    run(test)


@pytest.mark.parametrize("readable", [[b"short"], [HEADER], [HEADER, bytes(0x18000)]])
def test_what_is_no_frame_is_dropped(readable: list[bytes]) -> None:
    async def test() -> None:
        async with pair() as (one, _):
            one.queues[TRANSMIT].add(readable)
            one.notify(TRANSMIT)
            assert len(await one.collected(TRANSMIT, 1)) == 1
            assert one.device.virtio.dropped == 1  # type: ignore[attr-defined]

    run(test)


def test_a_closed_far_end_is_an_unplugged_cable() -> None:
    async def test() -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link = SocketLink(near)
        async with started(VirtioMmio(Net(link)), MmioGuest) as guest:
            far.close()
            guest.queues[RECEIVE].add(writable=[2048])
            guest.notify(RECEIVE)
            await until(lambda: link.closed)
            guest.queues[TRANSMIT].add([HEADER, b"frame"])
            guest.notify(TRANSMIT)
            await guest.collected(TRANSMIT, 1)
            assert guest.device.virtio.dropped == 1  # type: ignore[attr-defined]

    run(test)


class FailingLink(SocketLink):
    """A link whose every call into the kernel fails with `number`, once `fails`."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        super().__init__(sock)
        self.number = number

    def send(self, frame: Sequence[memoryview]) -> bool:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    "number", [errno.EBADFD, errno.EIO, errno.ENODEV, errno.ENOTCONN, errno.EACCES, errno.ENOMEM,
    errno.EINVAL]
)
def test_a_frame_that_the_backend_refuses_is_dropped_whatever_its_errno(number: int) -> None:
    """As on an unplugged cable: the chain comes back, the frame is counted, the access does not fail."""

    async def test() -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            async with started(VirtioMmio(Net(FailingLink(near, number))), MmioGuest) as guest:
                guest.queues[TRANSMIT].add([HEADER, b"frame"])
                guest.notify(TRANSMIT)
                assert len(guest.queues[TRANSMIT].collect()) == 1
                assert guest.device.virtio.dropped == 1  # type: ignore[attr-defined]

    run(test)


def test_a_deleted_tap_is_closed_and_no_longer_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tap that was deleted reads EBADFD and stays readable for ever."""

    async def test() -> None:
        reader, writer = os.pipe()
        os.write(writer, b"x")
        tap = TapLink.__new__(TapLink)
        tap._fd, tap.closed = os.dup(reader), False
        asked = []

        def read(fd: int, count: int) -> bytes:
            asked.append(fd)
            raise OSError(errno.EBADFD, os.strerror(errno.EBADFD))

        async with started(VirtioMmio(Net(tap)), MmioGuest) as guest:
            with monkeypatch.context() as patched:
                patched.setattr(os, "read", read)
                guest.queues[RECEIVE].add(writable=[256])
                guest.notify(RECEIVE)
                for _ in range(20):
                    await asyncio.sleep(0)
            assert tap.closed
            assert len(asked) == 1
        os.close(reader)
        os.close(writer)

    run(test)


@pytest.mark.skipif(
    not os.access("/dev/net/tun", os.W_OK) or os.geteuid() != 0 or shutil.which("ip") is None,
    reason="needs root, /dev/net/tun and the command ip (iproute2)",
)
def test_a_tap_that_is_deleted_loses_frames_and_nothing_else() -> None:
    async def test() -> None:
        async with started(VirtioMmioNet(tap="shardio-test"), MmioGuest) as guest:
            subprocess.run(["ip", "link", "delete", "shardio-test"], check=True)
            guest.queues[RECEIVE].add(writable=[2048])
            guest.queues[TRANSMIT].add([HEADER, bytes(60)])
            guest.notify(RECEIVE)
            guest.notify(TRANSMIT)
            await guest.collected(TRANSMIT, 1)
            await until(lambda: guest.device.virtio._link.closed)  # type: ignore[attr-defined]
            assert guest.device.virtio.dropped == 1  # type: ignore[attr-defined]

    run(test)


def test_a_socket_that_cannot_be_read_is_closed() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    far.close()
    link = SocketLink(near)
    link.close()

    assert link.receive() is None
    assert link.closed


@pytest.mark.parametrize(
    "name", ["", "a-name-that-is-16", "tap/0", "tap%d", "tap 0", "t\0ap", "t\u00e4p", "tap0\n", "."]
)
def test_a_tap_name_that_the_kernel_would_change_or_refuse_is_refused(name: str) -> None:
    """IFNAMSIZ is 16 with the closing zero: a longer name must not be cut to another interface's."""
    with pytest.raises(BackendError, match="no name of an interface"):
        TapLink(name)


@pytest.mark.parametrize(("local", "peer"), [("/" + "x" * 107, "@b"), ("@b", "/" + "x" * 107)])
def test_a_socket_address_that_is_too_long_is_refused(local: str, peer: str) -> None:
    with pytest.raises(BackendError, match="too long"):
        SocketLink.between(local, peer)


def test_a_cable_of_two_addresses_survives_a_restart_of_one_end(tmp_path: Path) -> None:
    async def test() -> None:
        here, there = str(tmp_path / "here"), str(tmp_path / "there")
        async with started(VirtioMmioNet(local=here, peer=there), MmioGuest) as guest:
            for turn in range(2):
                guest.queues[RECEIVE].add(writable=[256])
                guest.notify(RECEIVE)
                async with started(VirtioMmioNet(local=there, peer=here), MmioGuest) as other:
                    other.queues[TRANSMIT].add([HEADER, bytes([turn]) * 60])
                    other.notify(TRANSMIT)
                    [(_, _, content)] = await guest.collected(RECEIVE, 1)
                    assert content[12] == turn
        assert os.listdir(tmp_path) == []

    run(test)


def test_a_stale_socket_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    stale, file = tmp_path / "stale", tmp_path / "file"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left_behind:
        left_behind.bind(str(stale))
    file.write_bytes(b"precious")

    VirtioMmioNet(local=str(stale), peer="@nobody").detach()

    with pytest.raises(BackendError, match="local address"):
        VirtioMmioNet(local=str(file), peer="@nobody")
    assert file.read_bytes() == b"precious"


def test_the_configuration_tells_address_status_and_mtu() -> None:
    device = VirtioMmioNet(mac="52:54:00:00:00:07", local="@shardio-test-a", peer="@shardio-test-b", mtu=9000)

    config = device.virtio.config()
    device.detach()

    assert config == bytes.fromhex("525400000007") + b"\x01\x00\x01\x00" + (9000).to_bytes(2, "little")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "52:54:00:00:00",
        "01:00:00:00:00:00",
        "ff:ff:ff:ff:ff:ff",
        "zz:54:00:00:00:01",
        "52:54:00:1:23:456",
        "525400123456",
        "52:54:00:12:34:56:78",
        "52:54:00-12-34-56",
        " 52:54:00:12:34:56",
        "52:54:00:12:34:56\n",
    ],
)
def test_no_unicast_address_is_refused(text: str) -> None:
    with pytest.raises(VirtioError, match="MAC"):
        parse_mac(text)


@pytest.mark.parametrize(
    "options", [{}, {"tap": "t", "local": "a", "peer": "b"}, {"local": "a"}, {"tap": "t", "peer": "b"}]
)
def test_a_net_has_exactly_one_host_side(options: dict[str, str]) -> None:
    with pytest.raises(VirtioError, match="either tap"):
        VirtioMmioNet(**options)  # type: ignore[arg-type]
