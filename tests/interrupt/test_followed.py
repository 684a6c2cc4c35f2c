"""`FollowedInterrupt`: a level line whose controller sees each rise and each fall."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from shardio.errors import InterruptError
from shardio.interrupt import InterruptManager, InterruptMode, Irqfd, LegacyConfig, RecordingBackend
from shardio.interrupt.backend import FALL, RISE
from shardio.interrupt.config import EXTINT
from shardio.interrupt.interrupt import FollowedInterrupt
from shardio.interrupt.proxy import ProxyBackend
from shardio.interrupt.server import InterruptServer


class Lines:
    """A shard's word of levels, as told by `set_level`; `inside` an access or not."""

    def __init__(self) -> None:
        self.moves: list[tuple[int, bool]] = []
        self.inside = False

    def set_level(self, bit: int, high: bool) -> bool:
        self.moves.append((bit, high))
        return self.inside


class WiredBackend(RecordingBackend):
    """One whose level lines have no resample fd."""

    def allocate(self, gsi: int | None, *, level: bool = False, followed: bool = False) -> Irqfd:
        return super().allocate(gsi)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def vmm() -> Iterator[WiredBackend]:
    with WiredBackend() as vmm:
        yield vmm


@pytest.fixture
def interrupts(lines: Lines, vmm: WiredBackend) -> Iterator[InterruptManager]:
    server = InterruptServer(vmm)

    def call(request):
        reply, fds = server.handle(request)
        return reply, [os.dup(fd) for fd in fds]

    proxy = ProxyBackend(call, set_level=lines.set_level)
    with InterruptManager(proxy) as interrupts:
        yield interrupts
    proxy.close()
    server.close()


@pytest.fixture
def line(interrupts: InterruptManager) -> FollowedInterrupt:
    line = interrupts.level(LegacyConfig(10))
    line.enable()
    return line


def test_it_moves_up_and_down_with_the_device(line: FollowedInterrupt, lines: Lines) -> None:
    line.trigger()
    line.trigger()
    line.deassert()
    line.deassert()

    assert lines.moves == [(10, True), (10, False)]


def test_each_move_outside_an_access_is_told_by_the_eventfd(
    line: FollowedInterrupt, vmm: WiredBackend
) -> None:
    line.trigger()
    line.deassert()

    assert vmm.delivered(gsi=10) == RISE + FALL


def test_a_move_in_an_access_goes_with_its_completion(
    line: FollowedInterrupt, lines: Lines, vmm: WiredBackend
) -> None:
    lines.inside = True
    line.trigger()
    line.deassert()

    assert vmm.delivered(gsi=10) == 0


def test_a_line_is_high_while_one_of_its_devices_holds_it(
    interrupts: InterruptManager, line: FollowedInterrupt, lines: Lines
) -> None:
    other = interrupts.level(LegacyConfig(10))
    other.enable()
    line.trigger()
    other.trigger()
    line.deassert()
    before = list(lines.moves)
    other.deassert()

    assert before == [(10, True)]
    assert lines.moves == [(10, True), (10, False)]


def test_a_masked_line_is_low_and_rises_when_unmasked(line: FollowedInterrupt, lines: Lines) -> None:
    line.trigger()
    line.mask()
    pending = line.pending
    line.unmask()

    assert pending
    assert lines.moves == [(10, True), (10, False), (10, True)]


def test_a_disabled_line_is_low_and_rises_when_enabled(line: FollowedInterrupt, lines: Lines) -> None:
    line.trigger()
    line.disable()
    line.enable()

    assert lines.moves == [(10, True), (10, False), (10, True)]


def test_a_freed_line_is_low_and_stays_so(line: FollowedInterrupt, lines: Lines) -> None:
    line.trigger()
    line.free()
    line.free()
    line.deassert()
    line.trigger()

    assert lines.moves == [(10, True), (10, False)]


def test_nobody_tells_of_an_eoi(line: FollowedInterrupt, lines: Lines) -> None:
    line.trigger()
    line.resample()

    assert line.resample_fd is None
    assert lines.moves == [(10, True)]


def test_the_pics_output_is_told_by_the_eventfd_when_it_rises(
    interrupts: InterruptManager, lines: Lines, vmm: WiredBackend
) -> None:
    output = interrupts.level(LegacyConfig(EXTINT))
    output.enable()
    lines.inside = True
    output.trigger()
    output.deassert()

    assert lines.moves == [(24, True), (24, False)]
    assert vmm.delivered(gsi=EXTINT) == RISE


def test_a_group_has_one_too(interrupts: InterruptManager, lines: Lines) -> None:
    group = interrupts.group(2, LegacyConfig(11, pin=1))
    group.switch(InterruptMode.INTX)
    group[1].trigger()
    group.deassert()

    assert lines.moves == [(11, True), (11, False)]


def test_a_line_that_cannot_be_lowered_is_refused(backend: RecordingBackend) -> None:
    with pytest.raises(InterruptError, match="cannot be lowered"):
        FollowedInterrupt(backend, backend.allocate(10, level=True))


def test_its_rises_are_counted(line: FollowedInterrupt, interrupts: InterruptManager) -> None:
    line.trigger()
    line.deassert()
    line.trigger()

    assert (interrupts.counts.raised, interrupts.counts.dropped) == (2, 0)
