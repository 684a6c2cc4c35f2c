"""Interrupt lines that travel with a reply: raised in an access alone, and only those that were granted."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from shardio import MutDeviceMmio
from shardio._core import lib
from shardio.fabric import Outcome, Owner
from tests.fabric.support import BASE, MMIO, bench


class Raiser(MutDeviceMmio):
    """Does `act` in each access; notes whether the line was taken."""

    def __init__(self, act: Callable[[], bool]) -> None:
        self.act = act
        self.taken: list[bool] = []

    def read(self, offset: int, size: int) -> int:
        self.taken.append(self.act())
        return 7

    def write(self, offset: int, size: int, value: int) -> None:
        self.taken.append(self.act())


def in_another_thread(owner: Owner) -> bool:
    """Raises line 5 in a thread of its own."""
    said: list[bool] = []
    thread = threading.Thread(target=lambda: said.append(owner.raise_line(5)))
    thread.start()
    thread.join()
    return said[0]


@pytest.mark.parametrize("write", [False, True])
def test_granted_lines_come_with_the_reply(write: bool) -> None:
    with bench() as b:
        owner = b.owner()
        device = Raiser(lambda: owner.raise_line(5) and owner.raise_line(9))
        b.add(owner, device)
        client = b.client()
        client.view.granted[0] = 1 << 5

        with b.serving(owner):
            outcome = client.write(MMIO, BASE, 4, 1) if write else client.read(MMIO, BASE, 4)[0]

        assert outcome is Outcome.ANSWERED
        assert device.taken == [True]
        assert client.view.lines == 1 << 5


def test_the_next_reply_brings_no_old_lines() -> None:
    with bench() as b:
        owner = b.owner()
        lines = [5]
        b.add(owner, Raiser(lambda: bool(lines) and owner.raise_line(lines.pop())))
        client = b.client()
        client.view.granted[0] = 0xFF_FFFF

        with b.serving(owner):
            client.read(MMIO, BASE, 4)
            client.view.lines = 0
            client.read(MMIO, BASE, 4)

        assert client.view.lines == 0


def test_a_handler_that_fails_has_raised_its_lines() -> None:
    def act() -> bool:
        owner.raise_line(5)
        raise RuntimeError("after the trigger")

    with bench() as b:
        owner, _, client = b.connect(Raiser(act))
        client.view.granted[0] = 1 << 5

        with b.serving(owner):
            outcome = client.write(MMIO, BASE, 4, 1)

        assert outcome is Outcome.NOT_ANSWERED
        assert client.view.lines == 1 << 5


@pytest.mark.parametrize("posted", [False, True])
def test_posted_writes_and_other_threads_take_no_line(posted: bool) -> None:
    with bench() as b:
        owner = b.owner()
        device = Raiser(lambda: owner.raise_line(5) if posted else in_another_thread(owner))
        b.add(owner, device, posted=posted)
        client = b.client()
        client.view.granted[0] = 1 << 5

        with b.serving(owner):
            client.write(MMIO, BASE, 4, 1)
        owner.flush()

        assert device.taken == [False]
        assert client.view.lines == 0


def test_outside_an_access_there_is_nothing_to_go_with() -> None:
    with bench() as b:
        assert b.owner().raise_line(5) is False


def test_a_line_that_has_no_bit_is_not_taken() -> None:
    with bench() as b:
        owner = b.owner()
        device = Raiser(lambda: owner.raise_line(32))
        b.add(owner, device)
        client = b.client()

        with b.serving(owner):
            client.read(MMIO, BASE, 4)

        assert device.taken == [False]


def test_lines_that_were_not_granted_are_dropped() -> None:
    with bench() as b:
        owner = b.owner()
        device = Raiser(lambda: owner.raise_line(1) and owner.raise_line(23))
        b.add(owner, device)
        client = b.client()

        with b.serving(owner):
            client.read(MMIO, BASE, 4)

        assert device.taken == [True]
        assert client.view.lines == 0


def levels(owner: Owner) -> int:
    """The shard's word of levels, as a worker reads it."""
    return int(owner.fabric.view.shard[owner.shard].levels)


@pytest.mark.parametrize("write", [False, True])
def test_a_wired_line_that_moves_in_an_access_is_told_with_the_reply(write: bool) -> None:
    with bench() as b:
        owner = b.owner()
        b.add(owner, Raiser(lambda: owner.set_level(9, True) and owner.set_level(3, False)))
        client = b.client()
        client.view.granted[0] = 1 << 9

        with b.serving(owner):
            client.write(MMIO, BASE, 4, 1) if write else client.read(MMIO, BASE, 4)

        assert client.view.lines == lib.SIO_LINE_MOVED | 1 << 9
        assert levels(owner) == 1 << 9


def test_the_pics_output_is_told_apart() -> None:
    with bench() as b:
        owner = b.owner()
        b.add(owner, Raiser(lambda: owner.set_level(24, True)))
        client = b.client()
        client.view.granted[0] = lib.SIO_LINE_EXTINT

        with b.serving(owner):
            client.read(MMIO, BASE, 4)

        assert client.view.lines == lib.SIO_LINE_OUTPUT_MOVED
        assert levels(owner) == lib.SIO_LINE_EXTINT


def test_a_shard_without_lines_tells_nothing() -> None:
    with bench() as b:
        owner = b.owner()
        b.add(owner, Raiser(lambda: owner.set_level(9, True)))
        client = b.client()

        with b.serving(owner):
            client.read(MMIO, BASE, 4)

        assert client.view.lines == 0


def test_a_wired_line_that_moves_outside_an_access_is_told_otherwise() -> None:
    with bench() as b:
        owner = b.owner()

        assert owner.set_level(9, True) is False
        assert levels(owner) == 1 << 9


def test_a_dead_owners_levels_fall() -> None:
    with bench() as b:
        owner = b.owner()
        owner.set_level(9, True)
        lib.sio_recover_epoch(b.fabric.view, owner.shard)

        assert levels(owner) == 0
