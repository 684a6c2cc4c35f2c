"""`shardio top`'s keys, and what becomes of the view when its machine is busy, gone, or has ended."""

from __future__ import annotations

import curses

import pytest

from shardio import HostError, MachineError
from shardio.cli.top import execute, terminal
from shardio.cli.top.terminal import Ended, Left, Top
from shardio.control import client
from shardio.control.client import Entry
from shardio.control.messages import Status
from shardio.dispatcher.statistics import ExitInfo
from shardio.vcpu.report import VcpuReport
from tests.cli.top.looks import device, status, vcpu

ENTRY = Entry(17, "lamp", "\0shardio/17/lamp")
PAUSED = VcpuReport(0, "paused", "runnable", 16, {"rip": 0x7C00}, {}, b"\x90", "nop")


class Control:
    """What the client's functions answer: looks, one after the other."""

    def __init__(self, *looks: Status | MachineError) -> None:
        self.looks = list(looks)
        self.lives = True

    def status(self, entry: Entry, patience_s: float) -> Status:
        found = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(found, MachineError):
            raise found
        return found

    def machines(self) -> tuple[Entry, ...]:
        return (ENTRY,) if self.lives else ()


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Control:
    made = Control(status(1, (vcpu({"IO": 5}),), (device("a"), device("b"))))
    monkeypatch.setattr(client, "status", made.status)
    monkeypatch.setattr(client, "machines", made.machines)
    return made


@pytest.fixture
def top(control: Control) -> Top:
    return Top(ENTRY, 1.0)


def shown(top: Top) -> str:
    return "\n".join(line.text for line in top.lines(80, 24))


def press(top: Top, *keys: str | int) -> None:
    for key in keys:
        top.press(ord(key) if isinstance(key, str) else key)


@pytest.mark.parametrize("key", ["q", "Q"])
def test_q_leaves(top: Top, key: str) -> None:
    with pytest.raises(Left):
        press(top, key)


def test_a_look_shows_what_happened_since(top: Top, control: Control) -> None:
    control.looks = [status(3, (vcpu({"IO": 25}),))]
    top.look()

    assert "over 2.0 s" in shown(top)
    assert "IO 10" in shown(top)


def test_frozen_it_does_not_look(top: Top, control: Control) -> None:
    press(top, "p")
    control.looks = [status(3, (vcpu({"IO": 25}),))]
    top.look()
    frozen = shown(top)
    press(top, " ")
    top.look()

    assert "FROZEN" in frozen
    assert "IO 10" in shown(top)


def test_numbers_choose_a_table_and_escape_goes_back(top: Top) -> None:
    press(top, "2", "j", "j", "\n")
    in_full = top.choice.table, top.choice.page, top.choice.row
    press(top, terminal.ESCAPE)
    table = top.choice.table, top.choice.page
    press(top, terminal.ESCAPE)

    assert in_full == ("devices", "row", "b")
    assert (table, top.choice.table) == (("devices", ""), "")


def test_enter_without_a_choice_takes_the_first_row(top: Top) -> None:
    press(top, "2", curses.KEY_ENTER)

    assert (top.choice.page, top.choice.row) == ("row", "a")


def test_sorting_walks_through_the_columns(top: Top) -> None:
    columns = []
    for _ in range(10):
        press(top, "2", "s")
        columns.append(top.choice.column("devices"))
    press(top, "r")

    assert sorted(columns) == list(range(10))
    assert top.choice.turned


def test_without_one_table_there_is_nothing_to_sort_or_to_choose(top: Top) -> None:
    press(top, "s", "j", "\n")

    assert (top.choice.columns, top.choice.row, top.choice.page) == ({}, None, "")


def test_the_interval_stays_within_bounds(top: Top) -> None:
    press(top, *"++++++++")
    least = top.interval
    press(top, *"------------")

    assert (least, top.interval) == (terminal.LEAST_S, terminal.MOST_S)


def test_help_comes_and_goes(top: Top) -> None:
    press(top, "h")
    with_help = shown(top)
    press(top, "?")

    assert "freeze what is shown" in with_help
    assert "freeze what is shown" not in shown(top)


def test_the_screen_is_shown_or_why_not(top: Top, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "screen", lambda *_: "login:\n$")
    press(top, "v")
    screen = shown(top)
    monkeypatch.setattr(client, "screen", _refuse)
    top.look()

    assert "login:\n$" in screen
    assert "it has none; add one" in shown(top)


def test_registers_of_a_vcpu_are_shown_once_it_is_paused(
    top: Top, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "examine", lambda *_: PAUSED)
    press(top, "1", "\n")
    running = shown(top)
    control.looks = [status(2, (vcpu(),), state="paused")]
    top.look()

    assert "its registers: shardio pause 17" in running
    assert "at 0x7c00: nop   (90)" in shown(top)


def test_registers_that_are_refused_are_told(
    top: Top, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "examine", _refuse)
    control.looks = [status(2, (vcpu(),), state="paused")]
    top.look()
    press(top, "1", "\n")

    assert "it has none; add one" in shown(top)


def test_a_busy_machine_is_told_and_asked_again(top: Top, control: Control) -> None:
    control.looks = [MachineError("machine lamp is busy", "try again"), status(3, (vcpu({"IO": 25}),))]
    top.look()
    busy = shown(top)
    top.look()

    assert "machine lamp is busy" in busy.splitlines()[-1]
    assert "IO 10" in shown(top)
    assert "busy" not in shown(top)


def test_a_machine_that_is_gone_has_ended(top: Top, control: Control) -> None:
    control.looks, control.lives = [MachineError("it has gone", "see shardio ls")], False

    with pytest.raises(Ended):
        top.look()


def test_a_machine_that_has_stopped_says_how(top: Top, control: Control) -> None:
    control.looks = [status(3, state="stopped", ended=ExitInfo("reset"))]

    with pytest.raises(Ended, match="reset"):
        top.look()


def test_without_a_terminal_it_says_what_to_do() -> None:
    with pytest.raises(HostError, match=r"needs a terminal; give --once"):
        terminal.run(ENTRY, 1.0)


def test_json_alone_is_refused() -> None:
    from argparse import Namespace

    with pytest.raises(MachineError, match="give --once, too"):
        execute(Namespace(machine=None, json=True, once=False, interval=1.0))


def _refuse(*_: object) -> None:
    raise MachineError("it has none", "add one")
