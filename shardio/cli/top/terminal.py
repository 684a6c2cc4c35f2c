"""`shardio top` in a terminal: keys, and looks at the machine, until it ends or the user leaves."""

from __future__ import annotations

import contextlib
import curses
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

from shardio.cli.top.sample import Sample, sample, times
from shardio.cli.top.tables import TABLES
from shardio.cli.top.view import Choice, Line, More, Style, choose, render
from shardio.control import client
from shardio.control.client import Entry
from shardio.control.messages import Status
from shardio.errors import HostError, MachineError

FIRST_S = 0.3
"""Before the second look, so that there is soon something to see."""
PATIENCE_S = 2.0
LEAST_S, MOST_S = 0.1, 60.0
ESCAPE = 27
ENTER = (curses.KEY_ENTER, 10, 13)
_TABLES = {ord("0"): "", ord("1"): "vcpus", ord("2"): "devices", ord("3"): "shards"}


class Left(Exception):
    """The user has left."""


class Ended(Exception):
    """The machine has ended: how, in words."""


class Top:
    """The state of the view. `look` asks the machine, `press` is a key, `lines` what is to be seen."""

    def __init__(self, entry: Entry, interval: float) -> None:
        self.interval = interval
        self.choice = Choice()
        self.note = ""
        """What went wrong at the last look."""
        self._entry = entry
        self._before = self._now = self._status()
        self._next = time.monotonic() + min(FIRST_S, interval)
        self._more: More | None = None

    def due_s(self) -> float:
        """Seconds until the next look."""
        return max(0.0, self._next - time.monotonic())

    def look(self) -> None:
        """Ask the machine again. Raises `Ended` where it is gone."""
        self._next = time.monotonic() + self.interval
        if self.choice.frozen:
            return
        try:
            now = self._status()
        except MachineError as error:
            self.note = error.message
            return
        self.note = ""
        self._before, self._now = self._now, now
        self._more = self._look_closer()

    def press(self, key: int) -> None:
        """A key of the user's. Raises `Left`."""
        choice = self.choice
        if key in (ord("q"), ord("Q")):
            raise Left
        if key in _TABLES:
            choice.table, choice.page, choice.row, choice.top = _TABLES[key], "", None, 0
        elif key in (curses.KEY_UP, ord("k")):
            choose(self.sample, choice, -1)
        elif key in (curses.KEY_DOWN, ord("j")):
            choose(self.sample, choice, 1)
        elif key in ENTER and choice.table:
            if choice.row is None:
                choose(self.sample, choice, 0)
            choice.page = "row" if choice.row is not None else ""
        elif key == ord("s") and choice.table:
            columns = len(TABLES[choice.table].columns)
            choice.columns[choice.table] = (choice.column(choice.table) + 1) % columns
        elif key == ord("r"):
            choice.turned = not choice.turned
        elif key in (ord("p"), ord(" ")):
            choice.frozen = not choice.frozen
        elif key == ord("v"):
            choice.page = "" if choice.page == "screen" else "screen"
        elif key in (ord("h"), ord("?")):
            choice.page = "" if choice.page == "help" else "help"
        elif key == ESCAPE:
            choice.table, choice.page = (choice.table, "") if choice.page else ("", "")
        elif key in (ord("+"), ord("=")):
            self.interval = max(LEAST_S, self.interval / 2)
        elif key == ord("-"):
            self.interval = min(MOST_S, self.interval * 2)
        self._more = self._look_closer()

    @property
    def sample(self) -> Sample:
        """What is shown."""
        return sample(self._before, self._now)

    def lines(self, width: int, height: int) -> list[Line]:
        """What is to be seen."""
        lines = render(self.sample, self.choice, width, height, self._more)
        if self.note:
            lines[-1] = Line(self.note[:width], Style.NOTE)
        return lines

    def _status(self) -> Status:
        try:
            found = client.status(self._entry, PATIENCE_S)
        except MachineError:
            if self._entry in client.machines():
                raise
            raise Ended("") from None
        if found.state in ("stopped", "closed"):
            raise Ended("" if found.ended is None else found.ended.reason)
        return found

    def _look_closer(self) -> More | None:
        """What the page that is shown needs beside the sample."""
        choice = self.choice
        if choice.page == "screen":
            try:
                return More(tuple(client.screen(self._entry, PATIENCE_S).split("\n")))
            except MachineError as error:
                return More((str(error),))
        if choice.page != "row":
            return None
        if isinstance(choice.row, int):
            return More(self._registers(choice.row))
        return More((), *times(self._before, self._now, str(choice.row)))

    def _registers(self, vcpu: int) -> tuple[str, ...]:
        if self._now.state != "paused":
            return (f"its registers: shardio pause {self._entry.pid}",)
        try:
            return client.examine(self._entry, vcpu, PATIENCE_S).lines()
        except MachineError as error:
            return (str(error),)


def run(entry: Entry, interval: float) -> str:
    """Show the machine until the user leaves (gives "") or it ends (gives how).

    Raises `HostError` without a terminal, and what the first look does.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise HostError("shardio top needs a terminal", "give --once, or --once --json")
    who = f"machine {entry.name} (pid {entry.pid})"
    try:
        top = Top(entry, interval)
        with _terminal() as window:
            _loop(window, top)
    except (Left, KeyboardInterrupt):
        return ""
    except Ended as ended:
        return f"{who} has ended{f': {ended}' if str(ended) else ''}"


def _loop(window: Any, top: Top) -> NoReturn:
    while True:
        _draw(window, top)
        window.timeout(int(1000 * top.due_s()) + 1)
        key = window.getch()
        if key not in (curses.ERR, curses.KEY_RESIZE):
            top.press(key)
        if top.due_s() == 0:
            top.look()


def _draw(window: Any, top: Top) -> None:
    styles = {
        Style.PLAIN: curses.A_NORMAL, Style.TITLE: curses.A_BOLD, Style.HEAD: curses.A_UNDERLINE,
        Style.CHOSEN: curses.A_REVERSE, Style.NOTE: curses.A_DIM,
    }  # fmt: skip
    height, width = window.getmaxyx()
    window.erase()
    for y, (text, style) in enumerate(top.lines(width, height)):
        with contextlib.suppress(curses.error):  # the last cell of all, and a terminal that has shrunk
            window.addstr(y, 0, text, styles[style])
    window.refresh()


@contextlib.contextmanager
def _terminal() -> Iterator[Any]:
    """The terminal as curses has it, and as it was afterwards, SIGTERM included."""
    os.environ.setdefault("ESCDELAY", "50")
    try:
        window = curses.initscr()
    except curses.error as error:
        hint = "set TERM to what the terminal is, or give --once"
        raise HostError(f"this terminal cannot be used: {error}", hint) from None
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        curses.noecho()
        curses.cbreak()
        window.keypad(True)
        with contextlib.suppress(curses.error):
            curses.curs_set(0)
        yield window
    finally:
        signal.signal(signal.SIGTERM, before)
        window.keypad(False)
        curses.endwin()


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
