"""The supervisor's round of events: what one of them ends, a later one of the same round must not touch."""

from __future__ import annotations

import os
import selectors
import socket

from shardio.fabric import Fabric
from shardio.routing import AddressMap
from shardio.supervisor import Supervisor
from shardio.supervisor.recovery import Policy


def test_an_event_of_a_socket_that_an_earlier_event_closed_is_left_out() -> None:
    events: list[str] = []
    first, second = socket.socketpair()
    bell = os.eventfd(1)
    with Fabric.create(vcpus=1, shards=1) as fabric:
        supervisor = Supervisor(
            fabric,
            AddressMap(fabric),
            lambda _index, _write: Policy.FAIL,
            lambda kind, _value: events.append(kind),
        )

        def close_the_other() -> None:
            events.append("bell")
            supervisor._selector.unregister(bell)
            supervisor._selector.unregister(first)
            first.close()

        def set_up() -> None:
            second.send(b"readable")
            supervisor._selector.register(bell, selectors.EVENT_READ, close_the_other)
            supervisor._selector.register(first, selectors.EVENT_READ, lambda: events.append("socket"))
            keys = [supervisor._selector.get_key(bell), supervisor._selector.get_key(first)]
            supervisor._selector.select = lambda _timeout=None: [(key, 1) for key in keys]  # type: ignore[method-assign]
            supervisor._poll(0)
            del supervisor._selector.select

        supervisor.call(set_up)
        supervisor.close()
    second.close()
    os.close(bell)
    assert events == ["bell"]
