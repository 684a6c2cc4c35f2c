"""`shardio.interrupt.interrupt`: edge and level, enable, mask, pending, resample, against the recording
backend.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.errors import InterruptError
from shardio.interrupt import (
    EdgeInterrupt,
    InterruptManager,
    InterruptMode,
    LegacyConfig,
    LevelInterrupt,
    MsiConfig,
    RecordingBackend,
    Trigger,
)

MESSAGE = MsiConfig(0xFEE0_0000, 0x31)


@pytest.fixture
def interrupts(backend: RecordingBackend) -> Iterator[InterruptManager]:
    with InterruptManager(backend) as interrupts:
        yield interrupts


@pytest.fixture
def edge(interrupts: InterruptManager) -> EdgeInterrupt:
    edge = interrupts.edge(LegacyConfig(line=4))
    edge.enable()
    return edge


@pytest.fixture
def level(interrupts: InterruptManager) -> LevelInterrupt:
    level = interrupts.level(LegacyConfig(line=11, pin=1))
    level.enable()
    return level


def test_an_interrupt_is_a_trigger(edge: EdgeInterrupt, level: LevelInterrupt) -> None:
    assert isinstance(edge, Trigger)
    assert isinstance(level, Trigger)


def test_each_edge_arrives(edge: EdgeInterrupt, backend: RecordingBackend) -> None:
    edge.trigger()
    edge.trigger()

    assert backend.delivered(gsi=4) == 2


def test_a_disabled_interrupt_drops_and_forgets(edge: EdgeInterrupt, backend: RecordingBackend) -> None:
    edge.mask()
    edge.trigger()
    edge.disable()
    edge.trigger()
    edge.unmask()
    edge.enable()

    assert (backend.delivered(gsi=4), edge.pending) == (0, False)


def test_masked_edges_become_one_on_unmask(edge: EdgeInterrupt, backend: RecordingBackend) -> None:
    edge.mask()
    edge.trigger()
    edge.trigger()
    while_masked = (backend.delivered(gsi=4), edge.pending)
    edge.unmask()

    assert while_masked == (0, True)
    assert (backend.delivered(gsi=4), edge.pending) == (1, False)


def test_unmask_without_pending_delivers_nothing(edge: EdgeInterrupt, backend: RecordingBackend) -> None:
    edge.mask()
    edge.unmask()

    assert backend.delivered(gsi=4) == 0


def test_a_level_line_is_raised_once(level: LevelInterrupt, backend: RecordingBackend) -> None:
    level.trigger()
    level.trigger()

    assert (backend.delivered(gsi=11), level.active) == (1, True)


def test_an_active_line_is_raised_again_on_resample(level: LevelInterrupt, backend: RecordingBackend) -> None:
    level.trigger()
    backend.delivered(gsi=11)
    level.resample()

    assert backend.delivered(gsi=11) == 1


def test_a_line_that_went_down_stays_down_on_resample(
    level: LevelInterrupt, backend: RecordingBackend
) -> None:
    level.trigger()
    backend.delivered(gsi=11)
    level.deassert()
    level.resample()

    assert backend.delivered(gsi=11) == 0


def test_a_masked_line_is_delivered_on_unmask_while_active(
    level: LevelInterrupt, backend: RecordingBackend
) -> None:
    level.mask()
    level.trigger()
    pending = level.pending
    level.unmask()

    assert (pending, level.pending, backend.delivered(gsi=11)) == (True, False, 1)


def test_a_masked_line_that_went_down_is_not_delivered(
    level: LevelInterrupt, backend: RecordingBackend
) -> None:
    level.mask()
    level.trigger()
    level.deassert()
    level.unmask()

    assert backend.delivered(gsi=11) == 0


def test_an_active_line_is_delivered_when_enabled(
    interrupts: InterruptManager, backend: RecordingBackend
) -> None:
    level = interrupts.level(LegacyConfig(line=11))
    level.trigger()
    level.enable()

    assert backend.delivered(gsi=11) == 1


def test_two_devices_share_a_line(
    interrupts: InterruptManager, level: LevelInterrupt, backend: RecordingBackend
) -> None:
    other = interrupts.level(LegacyConfig(line=11))
    other.enable()
    level.trigger()
    other.trigger()
    raised = backend.delivered(gsi=11)
    level.deassert()
    level.resample()
    other.resample()

    assert (raised, backend.delivered(gsi=11)) == (2, 1)


def test_the_loop_resamples(backend: RecordingBackend) -> None:
    async def run() -> int:
        with InterruptManager(backend, asyncio.get_running_loop()) as interrupts:
            level = interrupts.level(LegacyConfig(line=11))
            level.enable()
            level.trigger()
            backend.delivered(gsi=11)
            backend.end_of_interrupt(gsi=11)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return backend.delivered(gsi=11)

    assert asyncio.run(run()) == 1


def test_a_message_is_routed_before_it_is_delivered(
    interrupts: InterruptManager, backend: RecordingBackend
) -> None:
    interrupt = interrupts.message(MESSAGE)
    interrupt.enable()
    interrupt.trigger()

    assert backend.routes[interrupt.gsi] == interrupt.config == MESSAGE
    assert backend.delivered(interrupt.gsi) == 1


def test_a_freed_interrupt_does_nothing(edge: EdgeInterrupt, backend: RecordingBackend) -> None:
    edge.free()
    edge.free()
    edge.trigger()

    assert backend.irqfds == {}


def test_a_freed_level_interrupt_touches_no_descriptor_of_its_number(level: LevelInterrupt) -> None:
    number = level.resample_fd
    level.free()
    other = os.eventfd(7, os.EFD_NONBLOCK)
    with contextlib.ExitStack() as closing:
        for fd in {other, os.dup2(other, number)}:
            closing.callback(os.close, fd)
        level.resample()
        assert os.eventfd_read(number) == 7


def test_closing_the_manager_frees_all(backend: RecordingBackend) -> None:
    with InterruptManager(backend) as interrupts:
        interrupts.edge(LegacyConfig(1))
        interrupts.level(LegacyConfig(2))
        interrupts.message()

    assert backend.irqfds == {}


def test_gsis_run_out_and_come_back() -> None:
    with RecordingBackend(dynamic_gsis=1) as backend, InterruptManager(backend) as interrupts:
        first = interrupts.message()
        with pytest.raises(InterruptError, match="no free GSI"):
            interrupts.message()
        first.free()

        assert interrupts.message().gsi == first.gsi


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: LegacyConfig(line=4096), "no such line"),
        (lambda: LegacyConfig(line=1, pin=5), "no pin 5"),
        (lambda: MsiConfig(address=0xFEE0_0001, data=0), "dword"),
        (lambda: MsiConfig(address=1 << 64, data=0), "dword"),
        (lambda: MsiConfig(address=0, data=1 << 32), "32 bits"),
        (lambda: MsiConfig(address=0, data=0, device_id=1 << 32), "32 bits"),
    ],
)
def test_impossible_configurations_cannot_be_made(make: type, reason: str) -> None:
    with pytest.raises(InterruptError, match=reason):
        make()


@given(st.lists(st.sampled_from(["trigger", "mask", "unmask", "enable", "disable"]), max_size=40))
def test_edges_match_a_model(operations: list[str]) -> None:
    """Delivered at once, kept as one while masked, dropped while disabled: whatever the order."""
    with RecordingBackend() as backend, InterruptManager(backend) as interrupts:
        edge = interrupts.edge(LegacyConfig(5))
        enabled = masked = pending = False
        expected = delivered = 0
        for operation in operations:
            getattr(edge, operation)()
            delivered += backend.delivered(gsi=5)
            match operation:
                case "trigger":
                    expected += enabled and not masked
                    pending = pending or (enabled and masked)
                case "mask" | "unmask":
                    masked = operation == "mask"
                case _:
                    enabled = operation == "enable"
                    pending = pending and enabled
            if pending and not masked:
                pending, expected = False, expected + 1
            assert (delivered, edge.pending) == (expected, pending)


@given(st.lists(st.sampled_from(["trigger", "deassert", "mask", "unmask", "resample"]), max_size=40))
def test_an_active_unmasked_line_is_always_up_after_a_resample(operations: list[str]) -> None:
    """The guest ends the interrupt at any moment: afterwards the line is up exactly when a device is
    active.
    """
    with RecordingBackend() as backend, InterruptManager(backend) as interrupts:
        level = interrupts.level(LegacyConfig(5))
        level.enable()
        for operation in operations:
            getattr(level, operation)()
        backend.delivered(gsi=5)
        level.resample()

        assert backend.delivered(gsi=5) == int(level.active and not level.masked)


def test_the_same_message_is_no_new_route(interrupts: InterruptManager, backend: RecordingBackend) -> None:
    interrupt = interrupts.message(MESSAGE)
    backend.routes.clear()
    interrupt.configure(MESSAGE)

    assert backend.routes == {}


# ---- how they are counted ---------------------------------------------------------------------------------


def counts(interrupts: InterruptManager) -> tuple[int, int]:
    return interrupts.counts.raised, interrupts.counts.dropped


def test_raised_edges_are_counted(edge: EdgeInterrupt, interrupts: InterruptManager) -> None:
    edge.trigger()
    edge.trigger()

    assert counts(interrupts) == (2, 0)


def test_an_edge_that_waits_behind_a_mask_is_counted_when_it_is_raised(
    edge: EdgeInterrupt, interrupts: InterruptManager
) -> None:
    edge.mask()
    edge.trigger()
    edge.trigger()
    while_masked = counts(interrupts)
    edge.unmask()

    assert (while_masked, counts(interrupts)) == ((0, 1), (1, 1))


def test_edges_of_a_disabled_interrupt_are_dropped(edge: EdgeInterrupt, interrupts: InterruptManager) -> None:
    edge.disable()
    edge.trigger()

    assert counts(interrupts) == (0, 1)


def test_a_line_is_counted_when_it_rises_and_when_it_is_raised_again(
    level: LevelInterrupt, interrupts: InterruptManager
) -> None:
    level.trigger()
    level.trigger()
    risen = counts(interrupts)
    level.resample()
    level.deassert()

    assert (risen, counts(interrupts)) == ((1, 0), (2, 0))


def test_vectors_of_a_group_are_counted_and_those_without_a_mode_dropped(
    interrupts: InterruptManager,
) -> None:
    group = interrupts.group(2, LegacyConfig(line=11))
    group[0].trigger()
    group.switch(InterruptMode.INTX)
    group[1].trigger()

    assert counts(interrupts) == (1, 1)
