"""A string whose owner dies on the way: its successor does the elements that were not done, and no other."""

from __future__ import annotations

import threading
import time

import pytest

from shardio import PioRange
from shardio._core import ffi, lib
from tests.fabric.support import PATIENCE_S, PIO, PORT, Bench, Log, bench

SPAN = PioRange(PORT, 8)
DONE = 3


def asked(b: Bench) -> int:
    """The name of the string that vCPU 0 has asked for, once it has."""
    request, taken = ffi.new("struct sio_request *"), ffi.new("int *")
    deadline = time.monotonic() + PATIENCE_S
    while not lib.sio_recover_request(b.fabric.view, 0, 0, request, taken):
        assert time.monotonic() < deadline
    return int(request.state) >> 2


def owner_died(b: Bench, journal: int, done: int) -> None:
    """What a dead owner leaves that had done so many elements, and what the VMM does then."""
    control = b.fabric.view.shard[0]
    control.taken, control.element = journal, done
    lib.sio_recover_settled(b.fabric.view, 0)


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_write_goes_on_with_the_first_element_that_was_not_done(deaths: int) -> None:
    device, payload = Log(), bytes(range(10))
    with bench() as b:
        route = b.add(b.owner(), Log(), SPAN)
        client = b.client()
        vcpu = threading.Thread(target=client.write_string, args=(PIO, PORT, 1, payload))
        vcpu.start()
        journal = asked(b)
        owner_died(b, journal, DONE)
        for _ in range(deaths - 1):  # of one that had taken nothing yet
            lib.sio_recover_settled(b.fabric.view, 0)
        successor = b.owner()
        successor.set_handler(route.index, SPAN, device)
        successor.scan()
        vcpu.join()

    assert [value for _, _, value in device.seen] == list(payload[DONE:])


def test_a_read_keeps_the_answers_that_were_there() -> None:
    device, found = Log([40, 50, 60]), []
    with bench() as b:
        route = b.add(b.owner(), Log(), SPAN)
        client = b.client()
        vcpu = threading.Thread(target=lambda: found.append(client.read_string(PIO, PORT, 1, DONE + 3)))
        vcpu.start()
        journal = asked(b)
        ffi.buffer(lib.sio_side(b.fabric.view, 0), DONE)[:] = b"\1\2\3"
        owner_died(b, journal, DONE)
        successor = b.owner()
        successor.set_handler(route.index, SPAN, device)
        successor.scan()
        vcpu.join()

    assert bytes(found[0][1]) == bytes([1, 2, 3, 40, 50, 60])


def test_another_string_begins_at_its_beginning() -> None:
    device, payload = Log(), bytes(range(10))
    with bench() as b:
        route = b.add(b.owner(), Log(), SPAN)
        client = b.client()
        vcpu = threading.Thread(target=client.write_string, args=(PIO, PORT, 1, payload))
        vcpu.start()
        owner_died(b, asked(b) - 1, DONE)
        successor = b.owner()
        successor.set_handler(route.index, SPAN, device)
        successor.scan()
        vcpu.join()

    assert [value for _, _, value in device.seen] == list(payload)


@pytest.mark.parametrize("done", [10, 11, 1 << 40])
def test_what_cannot_be_is_the_whole_string_at_most(done: int) -> None:
    device = Log()
    with bench() as b:
        route = b.add(b.owner(), Log(), SPAN)
        client = b.client()
        vcpu = threading.Thread(target=client.write_string, args=(PIO, PORT, 1, bytes(10)))
        vcpu.start()
        owner_died(b, asked(b), done)
        successor = b.owner()
        successor.set_handler(route.index, SPAN, device)
        successor.scan()
        vcpu.join()

    assert device.seen == []
