"""The PS/2 mouse: each command and its answer (IBM PS/2 technical reference, "Mouse")."""

from __future__ import annotations

import msgspec
import pytest

from shardio.devices.ps2_mouse import Mouse, MouseState


def answers(mouse: Mouse, *values: int) -> list[tuple[int, ...]]:
    return [mouse.receive(value) for value in values]


@pytest.mark.parametrize(("values", "wanted"), [
    ((0xFF,), [(0xFA, 0xAA, 0x00)]),
    ((0xF2,), [(0xFA, 0x00)]),
    ((0xF6,), [(0xFA,)]),
    ((0xF4,), [(0xFA,)]),
    ((0xF5,), [(0xFA,)]),
    ((0xF3, 200), [(0xFA,), (0xFA,)]),
    ((0xF3, 201), [(0xFA,), (0xFC,)]),
    ((0xE8, 3), [(0xFA,), (0xFA,)]),
    ((0xE8, 4), [(0xFA,), (0xFC,)]),
    ((0xEB,), [(0xFA, 0x08, 0, 0)]),
    ((0xF0,), [(0xFA,)]),
    ((0xEA,), [(0xFA,)]),
    ((0xE6,), [(0xFA,)]),
    ((0x12,), [(0xFE,)]),
])  # fmt: skip
def test_commands(values: tuple[int, ...], wanted: list[tuple[int, ...]]) -> None:
    assert answers(Mouse(), *values) == wanted


def test_the_status_tells_what_was_set() -> None:
    mouse = Mouse()
    answers(mouse, 0xF4, 0xE7, 0xF0, 0xE8, 1, 0xF3, 40)

    assert mouse.receive(0xE9) == (0xFA, 0x70, 1, 40)
    answers(mouse, 0xF6)
    assert mouse.receive(0xE9) == (0xFA, 0x00, 2, 100)


def test_in_wrap_mode_it_echoes_until_it_is_told_otherwise() -> None:
    mouse = Mouse()

    assert answers(mouse, 0xEE, 0xF2, 0xFE, 0xEC, 0xF2) == [
        (0xFA,), (0xF2,), (0xFE,), (0xFA,), (0xFA, 0x00),
    ]  # fmt: skip
    answers(mouse, 0xEE)
    assert mouse.receive(0xFF) == (0xFA, 0xAA, 0x00)


def test_it_sends_its_last_answer_again() -> None:
    mouse = Mouse()

    assert answers(mouse, 0xF2, 0xFE, 0xFE) == [(0xFA, 0x00)] * 3


def test_its_state_travels() -> None:
    mouse = Mouse()
    answers(mouse, 0xF4, 0xF3)
    successor = Mouse()
    successor.state = msgspec.msgpack.decode(msgspec.msgpack.encode(mouse.state), type=MouseState)

    assert successor.receive(80) == (0xFA,)
    assert successor.receive(0xE9) == (0xFA, 0x20, 2, 80)
