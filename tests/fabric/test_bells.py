"""Doorbells of devices, and other host I/O, beside an owner's mailboxes: in the sleep of its event loop and
while its drain loop lingers.
"""

from __future__ import annotations

import os
import select
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shardio import MmioRange
from shardio.errors import FabricError
from shardio.fabric import Outcome, Owner, Turn
from shardio.fabric.owner import NO_RANGE, RUNG
from tests.fabric.support import BASE, MMIO, PATIENCE_S, Bench, Log, bench
from tests.fabric.test_fork import ELSEWHERE, PREAMBLE
from tests.fabric.test_lifetime import in_a_process

TURN_NS = 500_000
PATIENCE_MS = int(PATIENCE_S * 1000)


class Rig:
    """An owner with an epoll descriptor, which has its doorbell, and a device's doorbell, number 1 of 2."""

    def __init__(self, b: Bench, epoll: select.epoll) -> None:
        self.failed = failed = list[tuple[int, str, int]]()
        self.device, self.rung, self.rings = Log(), list[int](), array("Q", [0, 0])
        self.owner = b.owner(on_error=lambda index, error, what: failed.append((index, str(error), what)))
        self.route, self.client = b.add(self.owner, self.device), b.client()
        self.epoll = epoll
        epoll.register(self.owner.doorbell, select.EPOLLIN)
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        b.stack.callback(os.close, self.bell)

    def add(self, ring: object = None, device: int = NO_RANGE) -> None:
        self.owner.add_bell(
            self.epoll.fileno(), self.bell, ring or self.rung.append, 1, self.rings, device  # type: ignore[arg-type]
        )  # fmt: skip

    def wait(self) -> tuple[bool, bool]:
        return self.owner.wait(TURN_NS, self.epoll.fileno(), PATIENCE_MS)

    def turn(self) -> Turn:
        return self.owner.turn(TURN_NS, self.epoll.fileno())

    def sleep(self) -> None:
        while self.turn() is not Turn.ASLEEP:
            pass


@pytest.fixture
def rig() -> Iterator[Rig]:
    with _rig() as made:
        yield made


@contextmanager
def _rig() -> Iterator[Rig]:
    with bench() as b, select.epoll() as epoll:
        made = Rig(b, epoll)
        yield made
        vars(made).clear()  # pytest keeps a fixture's value, and a port its descriptors


def test_a_ring_wakes_and_is_counted(rig: Rig) -> None:
    rig.add()
    rig.sleep()
    os.eventfd_write(rig.bell, 3)

    _, events = rig.wait()

    assert not events
    assert (rig.rung, list(rig.rings)) == ([1], [0, 3])


@pytest.mark.parametrize("crowded", [False, True], ids=["alone", "crowded"])
def test_after_a_ring_a_turn_is_due_unless_others_want_the_cpu(rig: Rig, crowded: bool) -> None:
    rig.add()
    rig.sleep()
    rig.owner.view.crowded = (1 << 63) - 1 if crowded else 0
    os.eventfd_write(rig.bell, 1)

    assert rig.wait() == (not crowded, False)


def test_a_turn_that_lingers_delivers_a_ring(rig: Rig) -> None:
    rig.add()
    os.eventfd_write(rig.bell, 1)

    assert rig.turn() is Turn.EVENTS
    assert (rig.rung, list(rig.rings)) == ([1], [0, 1])


def test_a_turn_that_lingers_ends_for_host_io(rig: Rig) -> None:
    """It used to look after its next request, or not before it had fallen asleep: 40 us later."""
    other = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    rig.epoll.register(other, select.EPOLLIN)

    assert rig.turn() is Turn.EVENTS
    os.close(other)


def test_what_is_nobodys_doorbell_is_left_to_the_event_loop(rig: Rig) -> None:
    rig.add()
    rig.sleep()
    other = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    rig.epoll.register(other, select.EPOLLIN)

    assert rig.wait() == (False, True)
    assert rig.rung == []
    assert rig.epoll.poll(0) == [(other, select.EPOLLIN)]
    os.close(other)


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_the_owners_own_doorbell_is_a_turn(rig: Rig, write: bool) -> None:
    rig.sleep()
    port = rig.client
    access = (lambda: port.write(MMIO, BASE, 4, 7)) if write else (lambda: port.read(MMIO, BASE, 4))
    client = threading.Thread(target=access)
    client.start()

    rig.wait()

    client.join()
    assert rig.device.seen == [(0, 4, 7 if write else None)]


def test_a_late_ring_of_the_owners_own_doorbell_ends_no_turn(rig: Rig) -> None:
    rig.turn()
    os.eventfd_write(rig.owner.doorbell, 1)

    assert rig.turn() is Turn.ASLEEP


def test_nothing_within_the_time_is_nothing(rig: Rig) -> None:
    rig.add()

    assert rig.owner.wait(TURN_NS, rig.epoll.fileno(), 0) == (False, False)


def test_a_removed_doorbell_is_not_delivered(rig: Rig) -> None:
    rig.add()
    rig.owner.remove_bell(rig.epoll.fileno(), rig.bell)
    os.eventfd_write(rig.bell, 1)

    assert rig.owner.wait(TURN_NS, rig.epoll.fileno(), 0) == (False, False)
    assert (rig.rung, os.eventfd_read(rig.bell)) == ([], 1)


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_a_handler_moves_a_doorbell(rig: Rig, write: bool) -> None:
    """As a PCI device does where its guest moves a base address register; it was refused as `at work`."""
    rig.add()

    class Moving(Log):
        def read(self, offset: int, size: int) -> int:
            rig.owner.remove_bell(rig.epoll.fileno(), rig.bell)
            rig.add()
            return super().read(offset, size)

        def write(self, offset: int, size: int, value: int) -> None:
            self.read(offset, size)

    rig.owner.set_handler(rig.route.index, MmioRange(BASE, 0x100), Moving())
    rig.sleep()
    port, answers = rig.client, []
    access = (lambda: port.write(MMIO, BASE, 4, 7)) if write else (lambda: port.read(MMIO, BASE, 4)[0])
    client = threading.Thread(target=lambda: answers.append(access()))
    client.start()
    rig.wait()
    client.join()
    os.eventfd_write(rig.bell, 1)
    rig.wait()

    assert (answers, rig.rung, rig.failed) == ([Outcome.ANSWERED], [1], [])


def test_a_device_that_raises_is_told_of_once_a_place(rig: Rig) -> None:
    def ring(_index: int) -> None:
        raise ValueError("no")

    rig.add(ring, device=rig.route.index)
    for _ in range(3):
        os.eventfd_write(rig.bell, 1)
        rig.wait()

    assert rig.failed == [(rig.route.index, "no", RUNG)]


def test_what_cannot_be_watched_is_refused(rig: Rig) -> None:
    with open(os.devnull) as file, pytest.raises(FabricError, match="cannot be watched"):
        rig.owner.add_bell(rig.epoll.fileno(), file.fileno(), rig.rung.append, 0, rig.rings)


def test_the_owner_is_not_entered_from_a_ring(rig: Rig) -> None:
    told = []

    def ring(_index: int) -> None:
        with pytest.raises(FabricError, match="at work"):
            rig.owner.scan()
        told.append(True)

    rig.add(ring)
    os.eventfd_write(rig.bell, 1)

    rig.wait()
    assert told == [True]


FORK = PREAMBLE + """
from tests.fabric.test_bells import _rig

with _rig() as rig:
    children = []
    def ring(index):
        children.append(os.fork())
    rig.add(ring)
    os.eventfd_write(rig.bell, 1)
    if code := refused(rig.wait):
        os._exit(code)
    print(status(children[0]), list(rig.rings))
"""


def test_a_child_that_comes_back_from_a_ring_serves_nothing() -> None:
    assert in_a_process(FORK).splitlines() == [f"the owner of shard 0 {ELSEWHERE}", "3 [0, 1]"]


def test_a_closed_owner_waits_no_more(rig: Rig) -> None:
    owner: Owner = rig.owner
    owner.close()

    with pytest.raises(FabricError, match="closed"):
        rig.wait()
    owner.remove_bell(rig.epoll.fileno(), rig.bell)
