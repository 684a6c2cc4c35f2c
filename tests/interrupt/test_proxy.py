"""`shardio.interrupt.proxy`, `server`, `messages`: a shard's requests over a real socket pair,
descriptors included.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.errors import InterruptError
from shardio.interrupt import InterruptManager, InterruptMode, LegacyConfig, MsiConfig, RecordingBackend
from shardio.interrupt.messages import (
    Allocate,
    Allocated,
    Connect,
    Disconnect,
    Free,
    Refused,
    Request,
    SetRoute,
    decode_reply,
    decode_request,
    encode,
)
from shardio.interrupt.proxy import ProxyBackend, call_over
from shardio.interrupt.server import InterruptServer
from tests.interrupt.support import shard_of

MESSAGE = MsiConfig(0xFEE0_0000, 0x31, device_id=8)


@pytest.fixture
def proxy(backend: RecordingBackend) -> Iterator[ProxyBackend]:
    with shard_of(InterruptServer(backend)) as proxy:
        yield proxy
    assert backend.irqfds == {}, "the shard is gone: the VMM must have freed what it held"


def test_a_trigger_of_the_shard_reaches_the_backend(proxy: ProxyBackend, backend: RecordingBackend) -> None:
    with InterruptManager(proxy) as interrupts:
        edge = interrupts.edge(LegacyConfig(4))
        edge.enable()
        edge.trigger()

        assert backend.delivered(gsi=4) == 1


def test_a_level_line_gets_both_descriptors(proxy: ProxyBackend, backend: RecordingBackend) -> None:
    with InterruptManager(proxy) as interrupts:
        level = interrupts.level(LegacyConfig(11))
        backend.end_of_interrupt(gsi=11)

        assert os.eventfd_read(level.resample_fd) == 1


def test_a_group_works_from_the_shard(proxy: ProxyBackend, backend: RecordingBackend) -> None:
    with InterruptManager(proxy) as interrupts:
        group = interrupts.group(2)
        group.switch(InterruptMode.MSI)
        group.configure_msi(MESSAGE)
        group[1].trigger()

        assert backend.routes[group.messages[1].gsi] == MESSAGE
        assert [backend.delivered(i.gsi) for i in group.messages] == [0, 1]


def test_disable_and_free_arrive(proxy: ProxyBackend, backend: RecordingBackend) -> None:
    with InterruptManager(proxy) as interrupts:
        edge = interrupts.edge(LegacyConfig(4))
        edge.enable()
        connected = len(backend.connected)
        edge.disable()
        disconnected = len(backend.connected)

    assert (connected, disconnected, backend.irqfds) == (1, 0, {})


def test_a_refusal_keeps_its_values(proxy: ProxyBackend) -> None:
    with pytest.raises(InterruptError) as caught:
        proxy.connect(99)

    assert caught.value.line == "handle 99"
    assert "not this shard's" in caught.value.reason


def test_a_vmm_that_is_gone_is_an_error() -> None:
    shard_end, vmm_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    vmm_end.close()

    with shard_end, pytest.raises(InterruptError, match="the VMM"):
        ProxyBackend(call_over(shard_end)).allocate(4)


def test_a_vmm_that_does_not_answer_is_an_error() -> None:
    shard_end, vmm_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    with shard_end, vmm_end, pytest.raises(InterruptError, match="no answer"):
        ProxyBackend(call_over(shard_end, timeout=0.01)).allocate(4)


# -- a hostile shard ------------------------------------------------------------------------------------


def test_another_shards_handle_is_refused(backend: RecordingBackend) -> None:
    theirs, mine = InterruptServer(backend), InterruptServer(backend)
    reply, _ = theirs.handle(Allocate(4))
    assert isinstance(reply, Allocated)

    answers = [
        mine.handle(request)[0]
        for request in (
            Connect(reply.handle),
            Disconnect(reply.handle),
            Free(reply.handle),
            SetRoute(reply.handle, MESSAGE),
        )
    ]

    assert all(isinstance(answer, Refused) for answer in answers)
    assert backend.connected == set()


def test_a_shard_holds_a_bounded_number(backend: RecordingBackend) -> None:
    server = InterruptServer(backend, limit=1)
    server.handle(Allocate(4))

    reply, fds = server.handle(Allocate(5))

    assert isinstance(reply, Refused)
    assert fds == []


@given(st.binary(max_size=64))
def test_any_bytes_are_answered(message: bytes) -> None:
    with RecordingBackend() as backend:
        server = InterruptServer(backend)
        reply, _ = server.handle_bytes(message)
        server.close()

    assert decode_reply(reply) is not None


def test_a_message_with_impossible_values_is_refused(backend: RecordingBackend) -> None:
    raw = encode(SetRoute(1, MESSAGE)).replace(encode(MESSAGE.address), encode(MESSAGE.address + 1))

    reply, _ = InterruptServer(backend).handle_bytes(raw)

    assert isinstance(decode_reply(reply), Refused)


@pytest.mark.parametrize(
    "request_", [Allocate(None), Allocate(4, True), SetRoute(1, MESSAGE), Connect(1), Disconnect(2), Free(3)]
)
def test_requests_survive_the_wire(request_: Request) -> None:
    assert decode_request(encode(request_)) == request_


def test_descriptors_of_a_refusal_are_closed() -> None:
    reader, writer = os.pipe()
    proxy = ProxyBackend(lambda request: (Refused("request", "no"), [writer]))

    with pytest.raises(InterruptError, match="no"):
        proxy.connect(1)

    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_late_reply_is_not_taken_for_the_next_ones() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    call = call_over(ours, timeout=0.01)
    with theirs:
        with pytest.raises(InterruptError, match="no answer"):
            call(Allocate(4))
        assert theirs.recv(4096) != b""
        assert theirs.recv(4096) == b""
        with pytest.raises(InterruptError, match="gone"):
            call(Allocate(4))
