"""`InterruptServer` tells which lines its shard has connected, and `with_access` goes before the eventfd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shardio.interrupt import EdgeInterrupt, Irqfd, LevelInterrupt, MsiConfig, RecordingBackend
from shardio.interrupt.messages import (
    Allocate,
    Allocated,
    Connect,
    Disconnect,
    Free,
    Refused,
    Reply,
    Request,
    SetRoute,
)
from shardio.interrupt.proxy import ProxyBackend
from shardio.interrupt.server import InterruptServer


@pytest.fixture
def granted() -> list[int]:
    return []


@pytest.fixture
def server(backend: RecordingBackend, granted: list[int]) -> Iterator[InterruptServer]:
    server = InterruptServer(backend, grant=granted.append)
    yield server
    server.close()


def allocate(server: InterruptServer, gsi: int | None) -> int:
    """The handle of a new irqfd."""
    reply, _ = server.handle(Allocate(gsi))
    assert isinstance(reply, Allocated)
    return reply.handle


def test_a_line_is_granted_while_it_is_connected(server: InterruptServer, granted: list[int]) -> None:
    five, nine = allocate(server, 5), allocate(server, 9)

    for request in (Connect(five), Connect(nine), Disconnect(five), Free(nine)):
        server.handle(request)

    assert granted == [1 << 5, 1 << 5 | 1 << 9, 1 << 9, 0]


def test_a_line_with_two_irqfds_stays_granted_until_both_are_gone(
    server: InterruptServer, granted: list[int]
) -> None:
    one, other = allocate(server, 5), allocate(server, 5)

    for request in (Connect(one), Connect(other), Free(one), Free(other)):
        server.handle(request)

    assert granted == [1 << 5, 1 << 5, 1 << 5, 0]


def test_a_message_grants_nothing(server: InterruptServer, granted: list[int]) -> None:
    handle = allocate(server, None)

    server.handle(SetRoute(handle, MsiConfig(0xFEE0_0000, 0x50)))
    server.handle(Connect(handle))

    assert granted == [0]


def test_a_shard_that_is_gone_has_no_lines(server: InterruptServer, granted: list[int]) -> None:
    server.handle(Connect(allocate(server, 4)))

    server.close()

    assert granted == [1 << 4, 0]


def test_a_handle_of_another_shard_grants_nothing(server: InterruptServer, granted: list[int]) -> None:
    reply, _ = server.handle(Connect(77))

    assert isinstance(reply, Refused)
    assert granted == []


def test_without_a_backend_interrupts_are_refused() -> None:
    reply, fds = InterruptServer(None).handle(Allocate(4))

    assert isinstance(reply, Refused)
    assert "irqchip" in reply.reason
    assert fds == []


@pytest.fixture
def raised() -> list[int]:
    return []


@pytest.fixture
def proxy(server: InterruptServer, raised: list[int], inside: list[bool]) -> ProxyBackend:
    def call(request: Request) -> tuple[Reply, list[int]]:
        return server.handle(request)

    def raise_line(gsi: int) -> bool:
        raised.extend([gsi] * inside[0])
        return inside[0]

    return ProxyBackend(call, raise_line)


@pytest.fixture
def inside() -> list[bool]:
    """Whether the shard is inside an access."""
    return [False]


def enabled_edge(proxy: ProxyBackend, gsi: int | None) -> EdgeInterrupt:
    """An interrupt of the proxy, connected."""
    interrupt = EdgeInterrupt(proxy, proxy.allocate(gsi))
    interrupt.enable()
    return interrupt


def test_an_edge_line_in_an_access_goes_with_it_alone(
    proxy: ProxyBackend, backend: RecordingBackend, raised: list[int], inside: list[bool]
) -> None:
    interrupt = enabled_edge(proxy, 5)
    inside[0] = True

    interrupt.trigger()

    assert raised == [5]
    assert backend.delivered(5) == 0


def test_an_edge_line_outside_an_access_is_one_eventfd_write(
    proxy: ProxyBackend, backend: RecordingBackend, raised: list[int]
) -> None:
    interrupt = enabled_edge(proxy, 5)

    interrupt.trigger()

    assert raised == []
    assert backend.delivered(5) == 1


def test_a_level_line_in_an_access_goes_with_it_and_is_held_by_the_eventfd(
    proxy: ProxyBackend, backend: RecordingBackend, raised: list[int], inside: list[bool]
) -> None:
    line = LevelInterrupt(proxy, proxy.allocate(10, level=True))
    line.enable()
    inside[0] = True

    line.trigger()

    assert raised == [10]
    assert backend.delivered(10) == 1


def test_a_message_is_always_its_eventfd(
    proxy: ProxyBackend, backend: RecordingBackend, raised: list[int], inside: list[bool]
) -> None:
    interrupt = enabled_edge(proxy, None)
    inside[0] = True

    interrupt.trigger()

    assert raised == []
    assert backend.delivered(interrupt.gsi) == 1


def test_with_access_is_no_part_of_an_irqfds_identity() -> None:
    assert Irqfd(1, 5, 7, with_access=lambda: True) == Irqfd(1, 5, 7)


def test_only_the_controllers_pins_are_lines(server: InterruptServer, granted: list[int]) -> None:
    for gsi in (23, 24):
        server.handle(Connect(allocate(server, gsi)))

    assert granted == [1 << 23, 1 << 23]
