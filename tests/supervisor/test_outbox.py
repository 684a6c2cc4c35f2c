"""What the VMM says to a process that does not read: kept in order, bounded, never waited for."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from shardio.shard import protocol
from shardio.supervisor import outbox
from shardio.supervisor.outbox import Outbox

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The VMM's end and the shard's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def call(serial: int, size: int = 60_000) -> protocol.Call:
    return protocol.Call(serial, "disk", "fill", bytes(size))


def test_what_finds_no_room_arrives_later_in_order(pair: Pair) -> None:
    box = Outbox(pair[0])
    sent = [box.send(call(serial)) for serial in range(50)]

    got = []
    for _ in range(50):
        message, _ = protocol.receive_in_shard(pair[1])
        assert isinstance(message, protocol.Call)
        got.append(message.serial)
        assert box.flush()

    assert (sent, got) == ([True] * 50, list(range(50)))


def test_a_kept_message_has_its_descriptors_though_the_sender_has_closed_them(pair: Pair) -> None:
    box = Outbox(pair[0])
    for serial in range(50):
        box.send(call(serial))
    fd = os.eventfd(3)
    box.send(protocol.Serve(), [fd])
    os.close(fd)

    for _ in range(50):
        protocol.receive_in_shard(pair[1])
        box.flush()
    message, (beside,) = protocol.receive_in_shard(pair[1])

    assert (message, os.eventfd_read(beside)) == (protocol.Serve(), 3)
    os.close(beside)


@pytest.mark.parametrize(("limit", "size"), [("MOST_BYTES", 60_000), ("MOST_MESSAGES", 10)])
def test_what_is_kept_is_bounded(pair: Pair, monkeypatch: pytest.MonkeyPatch, limit: str, size: int) -> None:
    monkeypatch.setattr(outbox, limit, 100)
    box = Outbox(pair[0])

    assert not all(box.send(call(serial, size)) for serial in range(5000))
    box.close()


def test_what_is_kept_for_a_process_that_is_gone_is_forgotten(pair: Pair) -> None:
    box = Outbox(pair[0])
    for serial in range(50):
        box.send(call(serial))
    pair[1].close()

    assert box.flush()
    with pytest.raises(BrokenPipeError):
        box.send(call(51))
