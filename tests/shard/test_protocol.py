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


def received(pair: Pair, *waited: int) -> FromShard | None:
    """What the VMM receives, where somebody waits for the answers to these requests."""
    return protocol.receive_in_vmm(pair[0], "shard0", lambda serial: serial in waited)


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
        protocol.Done(7, result=protocol.pack_result([1, "two", None])),
        protocol.Done(8, error="no", hint="do"),
        protocol.ExitRequest(255),
        protocol.ResetRequest(),
        protocol.HandlerFailed("uart", "read: ValueError"),
    ],
)
def test_an_answer_arrives_as_it_was_sent(pair: Pair, message: FromShard) -> None:
    protocol.send(pair[1], message)

    assert received(pair) == message


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
    result = bytes(range(256)) * (protocol.MAX_MESSAGE // 64)
    protocol.tell(pair[1], protocol.Done(7, result=protocol.pack_result(result)))

    answer = received(pair, 7)

    assert isinstance(answer, protocol.Done)
    assert protocol.unpack_result(answer.result, "shard0") == result


def test_a_long_answer_that_nobody_waits_for_is_not_read(pair: Pair) -> None:
    protocol.tell(pair[1], protocol.Done(7, result=bytes(protocol.MAX_MESSAGE)))

    with pytest.raises(ShardError, match="nobody waits"):
        received(pair, 8)


def test_a_message_beyond_the_limit_is_refused_where_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_LONG", 200_000)

    with pytest.raises(MachineError, match="too many"):
        protocol.encode(protocol.Call(7, "disk", "fill", bytes(200_000)))
    with pytest.raises(MachineError, match="too many"):
        protocol.pack_result(bytes(200_000))


@pytest.mark.parametrize("which", ["pipe", "unsealed memfd"])
def test_what_cannot_be_a_long_result_is_refused_and_never_waited_for(pair: Pair, which: str) -> None:
    reader, writer = os.pipe()
    unsealed = os.memfd_create("message", os.MFD_ALLOW_SEALING)
    os.write(unsealed, b"\x80")
    beside = {"pipe": reader, "unsealed memfd": unsealed}[which]
    protocol.send(pair[1], protocol.Done(7, beside=True), [beside])

    with pytest.raises(ShardError, match="makes no sense"):
        received(pair, 7)
    for fd in (reader, writer, unsealed):
        os.close(fd)


def result_of(*parts: bytes) -> object:
    return protocol.unpack_result(b"".join(parts), "shard0")


def test_a_result_of_very_many_values_is_not_unpacked() -> None:
    """16 MiB of empty lists would be 1 GiB in the VMM."""
    count = 16 << 20
    with pytest.raises(ShardError, match="values"):
        result_of(b"\xdd", count.to_bytes(4, "big"), b"\x90" * count)


@pytest.mark.parametrize("packed", [b"\x91" * 200_000, b"\x91" * 600_000, b"\xa2\xff\xff", b"\xc6", b"\xc1"])
def test_a_result_that_nests_deeply_or_is_nonsense_is_refused(packed: bytes) -> None:
    with pytest.raises(ShardError, match="cannot be read"):
        result_of(packed)


def test_a_long_result_of_few_values_is_unpacked() -> None:
    result = {"image": bytes(1 << 20), "name": "x" * 300_000, "blocks": [1, 2.5, -7, None, {"a": b""}] * 100}
    assert result_of(protocol.pack_result(result)) == result


def test_descriptors_go_to_a_shard(pair: Pair) -> None:
    fd = os.eventfd(3)
    protocol.send(pair[0], protocol.Serve(), [fd])
    os.close(fd)

    _, (received,) = protocol.receive_in_shard(pair[1])

    assert os.eventfd_read(received) == 3
    os.close(received)


def test_descriptors_from_a_shard_are_refused_and_closed(pair: Pair) -> None:
    reader, writer = os.pipe()
    protocol.send(pair[1], protocol.Ready(), [writer])
    os.close(writer)

    with pytest.raises(ShardError, match="descriptors"):
        received(pair)

    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_shard_learns_that_the_vmm_is_gone(pair: Pair) -> None:
    pair[0].close()

    assert protocol.receive_in_shard(pair[1]) == (None, [])


def test_the_vmm_learns_that_a_shard_is_gone(pair: Pair) -> None:
    pair[1].close()

    assert received(pair) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"\x81",
        b"\x80",
        b"\x81\xa4type\xa4quit",
        b"x" * 1000,
        b"\x91" * 100_000,
        b"\x82\xa4type\xa6failed\xa6device\xa1\xff",
    ],
)
def test_nonsense_from_a_shard_is_refused_by_name(pair: Pair, data: bytes) -> None:
    pair[1].send(data)

    with pytest.raises(ShardError, match=r"shard0.*makes no sense"):
        received(pair)


def test_a_shard_has_nobody_to_tell_where_the_vmm_is_gone(pair: Pair) -> None:
    ours, theirs = pair
    ours.close()

    with pytest.raises(BrokenPipeError):
        protocol.send(theirs, protocol.Ready())
    protocol.tell(theirs, protocol.Ready())
