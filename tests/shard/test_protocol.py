"""Messages between the VMM and a shard: each arrives as it was sent, with its descriptors, or is refused."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from shardio import MachineError, ShardError
from shardio.shard import protocol
from shardio.shard.loading import Packed
from shardio.shard.protocol import FromShard, ToShard

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The VMM's end and the shard's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


SPEC = protocol.DeviceSpec("uart", Packed(b"\x80", b"\x81"), [protocol.RangeSpec(3, "pio", 0x3F8, 8, True)])


@pytest.mark.parametrize(
    "message",
    [
        protocol.Prepare(["/lib"], [b"\x80"]),
        protocol.Setup(3, "disk", ["/lib"]),
        protocol.AddDevices(7, [SPEC, SPEC]),
        protocol.AddDevices(7, [SPEC], serve=True),
        protocol.RemoveDevice(8, "uart", [3, 4]),
        protocol.Call(9, "uart", "reset", b""),
        protocol.Serve(),
        protocol.Quit(),
    ],
)
def test_a_request_arrives_as_it_was_sent(pair: Pair, message: ToShard) -> None:
    protocol.send(pair[0], message)

    assert protocol.receive_in_shard(pair[1]) == (message, [])


@pytest.mark.parametrize(
    "message",
    [
        protocol.Ready(),
        protocol.Done(7, result=[1, "two", None]),
        protocol.Done(8, error="no", cure="do"),
        protocol.ExitRequest(255),
        protocol.ResetRequest(),
        protocol.HandlerFailed("uart", "read: ValueError"),
    ],
)
def test_an_answer_arrives_as_it_was_sent(pair: Pair, message: FromShard) -> None:
    protocol.send(pair[1], message)

    assert protocol.receive_in_vmm(pair[0], "shard0") == message


def test_a_long_request_arrives_with_its_descriptors(pair: Pair) -> None:
    message = protocol.Call(9, "disk", "fill", bytes(range(256)) * (protocol.MAX_MESSAGE // 64))
    fd = os.eventfd(3)
    protocol.send(pair[0], message, [fd])
    os.close(fd)

    received, (beside,) = protocol.receive_in_shard(pair[1])

    assert received == message
    assert os.eventfd_read(beside) == 3
    os.close(beside)


def test_a_long_answer_arrives_as_it_was_sent(pair: Pair) -> None:
    message = protocol.Done(7, result=bytes(range(256)) * (protocol.MAX_MESSAGE // 64))
    protocol.send(pair[1], message)

    assert protocol.receive_in_vmm(pair[0], "shard0") == message


def test_a_message_beyond_the_limit_is_refused_where_it_is_sent(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MAX_LONG", 200_000)

    with pytest.raises(MachineError, match="too many"):
        protocol.send(pair[1], protocol.Done(7, result=bytes(200_000)))


@pytest.mark.parametrize("which", ["pipe", "unsealed memfd"])
def test_what_cannot_be_a_long_message_is_refused_and_never_waited_for(pair: Pair, which: str) -> None:
    reader, writer = os.pipe()
    unsealed = os.memfd_create("message", os.MFD_ALLOW_SEALING)
    os.write(unsealed, b"\x80")
    socket.send_fds(pair[1], [protocol.LONG], [{"pipe": reader, "unsealed memfd": unsealed}[which]])

    with pytest.raises(ShardError, match="makes no sense"):
        protocol.receive_in_vmm(pair[0], "shard0")
    for fd in (reader, writer, unsealed):
        os.close(fd)


def test_descriptors_go_to_a_shard(pair: Pair) -> None:
    fd = os.eventfd(3)
    protocol.send(pair[0], protocol.Serve(), [fd])
    os.close(fd)

    _, (received,) = protocol.receive_in_shard(pair[1])

    assert os.eventfd_read(received) == 3
    os.close(received)


def test_descriptors_from_a_shard_are_closed(pair: Pair) -> None:
    reader, writer = os.pipe()
    protocol.send(pair[1], protocol.Ready(), [writer])
    os.close(writer)

    protocol.receive_in_vmm(pair[0], "shard0")

    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_shard_learns_that_the_vmm_is_gone(pair: Pair) -> None:
    pair[0].close()

    assert protocol.receive_in_shard(pair[1]) == (None, [])


def test_the_vmm_learns_that_a_shard_is_gone(pair: Pair) -> None:
    pair[1].close()

    assert protocol.receive_in_vmm(pair[0], "shard0") is None


@pytest.mark.parametrize("data", [b"\xc1", b"\x81", b"\x80", b"\x81\xa4type\xa4quit", b"x" * 1000])
def test_nonsense_from_a_shard_is_refused_by_name(pair: Pair, data: bytes) -> None:
    pair[1].send(data)

    with pytest.raises(ShardError, match=r"shard0.*makes no sense"):
        protocol.receive_in_vmm(pair[0], "shard0")


def test_a_shard_has_nobody_to_tell_where_the_vmm_is_gone(pair: Pair) -> None:
    ours, theirs = pair
    ours.close()

    with pytest.raises(BrokenPipeError):
        protocol.send(theirs, protocol.Ready())
    protocol.tell(theirs, protocol.Ready())
