"""The supervisor's round of events: what one of them ends, a later one of the same round must not touch."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable

from shardio.fabric import Fabric
from shardio.routing import AddressMap
from shardio.supervisor import Supervisor
from shardio.supervisor.failover import Policy


def polled(prepare: Callable[[Supervisor], list[int | socket.socket]]) -> None:
    """One round of a supervisor in which what `prepare` gives is ready, in that order."""
    failures: list[object] = []
    with Fabric.create(vcpus=1, shards=1) as fabric:
        supervisor = Supervisor(
            fabric,
            AddressMap(fabric),
            lambda _index, _write: Policy.FAIL,
            lambda _kind, value: failures.append(value),
        )

        def act() -> None:
            keys = [supervisor._selector.get_key(ready) for ready in prepare(supervisor)]
            select = supervisor._selector.select
            rounds = iter([[(key, 1) for key in keys]])
            supervisor._selector.select = lambda timeout=None: next(rounds, None) or select(timeout)  # type: ignore[method-assign]
            supervisor._poll(0)
            del supervisor._selector.select

        supervisor.call(act)
        supervisor.close()
    assert not failures


def test_an_event_that_a_poll_within_this_round_has_dealt_with_is_left_out() -> None:
    events: list[str] = []
    first, second = socket.socketpair()
    first.setblocking(False)
    bell = os.eventfd(1)

    def prepare(supervisor: Supervisor) -> list[int | socket.socket]:
        def stop() -> None:
            supervisor._selector.unregister(bell)
            supervisor._poll(0)

        second.send(b"message")
        supervisor._selector.register(bell, selectors.EVENT_READ, stop)
        supervisor._selector.register(
            first, selectors.EVENT_READ, lambda: events.append(first.recv(16).decode())
        )
        return [bell, first]

    polled(prepare)
    first.close()
    second.close()
    os.close(bell)
    assert events == ["message"]


def test_an_event_of_a_socket_that_an_earlier_event_closed_is_left_out() -> None:
    events: list[str] = []
    first, second = socket.socketpair()
    bell = os.eventfd(1)

    def prepare(supervisor: Supervisor) -> list[int | socket.socket]:
        def close_the_other() -> None:
            events.append("bell")
            supervisor._selector.unregister(bell)
            supervisor._selector.unregister(first)
            first.close()

        second.send(b"readable")
        supervisor._selector.register(bell, selectors.EVENT_READ, close_the_other)
        supervisor._selector.register(first, selectors.EVENT_READ, lambda: events.append("socket"))
        return [bell, first]

    polled(prepare)
    second.close()
    os.close(bell)
    assert events == ["bell"]
