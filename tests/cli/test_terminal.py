"""shardio.cli.terminal: escapes, raw mode and the pipe to the guest, on a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import select
import termios
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.cli.terminal import BACKLOG, Action, EscapeFilter, RawMode, SerialInput

ESCAPE = b"\x01"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe, whose reading end stands for a standard input that is no terminal."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


def read_all(fd: int) -> bytes:
    """Everything up to the end of the pipe."""
    return b"".join(iter(lambda: os.read(fd, 4096), b""))


def within_a_second(fd: int) -> bytes:
    """What can be read from `fd`, waited for a second at most."""
    ready, _, _ = select.select([fd], [], [], 1.0)
    return b"".join(os.read(each, 4096) for each in ready)


@given(st.binary().filter(lambda data: ESCAPE not in data))
def test_without_escapes_every_byte_passes(data: bytes) -> None:
    assert EscapeFilter().feed(data) == (data, [])


@given(st.binary(), st.integers(min_value=0))
def test_a_split_changes_nothing(data: bytes, split: int) -> None:
    at = split % (len(data) + 1)
    whole = EscapeFilter().feed(data)
    keys = EscapeFilter()

    first, second = keys.feed(data[:at]), keys.feed(data[at:])

    assert (first[0] + second[0], first[1] + second[1]) == whole


@given(st.binary())
def test_doubled_escape_carries_any_byte(data: bytes) -> None:
    assert EscapeFilter().feed(data.replace(ESCAPE, ESCAPE * 2)) == (data, [])


@pytest.mark.parametrize(
    ("typed", "action"),
    [(b"x", Action.LEAVE), (b"X", Action.LEAVE), (b"h", Action.HELP), (b"?", Action.HELP)],
)
def test_escapes(typed: bytes, action: Action) -> None:
    assert EscapeFilter().feed(b"a" + ESCAPE + typed + b"b") == (b"ab", [action])


def test_unknown_escape_is_dropped_with_its_key() -> None:
    assert EscapeFilter().feed(b"a" + ESCAPE + b"qb") == (b"ab", [])


def test_raw_mode_leaves_a_pipe_alone(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with RawMode(reader):
        os.close(writer)

    assert os.read(reader, 1) == b""


def test_raw_mode_leaves_a_foreign_terminal_alone(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, program = terminal
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp() + 1)
    before = termios.tcgetattr(program)

    with RawMode(program):
        during = termios.tcgetattr(program)

    assert during == before


def test_raw_mode_takes_a_terminal_that_controls_no_session(terminal: tuple[int, int]) -> None:
    _, program = terminal
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        os.tcgetpgrp(program)
    before = termios.tcgetattr(program)
    with RawMode(program):
        raw = termios.tcgetattr(program)
    assert not raw[3] & termios.ICANON
    assert termios.tcgetattr(program) == before


def test_raw_mode_is_undone_by_an_error(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, program = terminal
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp())
    before = termios.tcgetattr(program)

    with pytest.raises(KeyboardInterrupt), RawMode(program):
        during = termios.tcgetattr(program)
        raise KeyboardInterrupt

    assert not during[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    assert during[1] & termios.OPOST
    assert termios.tcgetattr(program) == before


def test_terminal_that_hung_up_ends_the_line_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    user, program = pty.openpty()
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp())
    with RawMode(program), SerialInput(program, lambda: None) as serial:
        os.close(user)
        carried = read_all(serial.reader)
    os.close(program)

    assert carried == b""


def test_pipe_passes_unchanged_to_its_end(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    left: list[bool] = []
    with SerialInput(reader, lambda: left.append(True)) as serial:
        os.write(writer, b"ls" + ESCAPE + b"x\n")
        os.close(writer)
        carried = read_all(serial.reader)

    assert carried == b"ls" + ESCAPE + b"x\n"
    assert left == []


def test_terminal_is_filtered(terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    user, program = terminal
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp())
    left = threading.Event()
    with RawMode(program), SerialInput(program, left.set) as serial:
        os.write(user, b"date\r" + ESCAPE + b"x")
        carried = within_a_second(serial.reader)
        was_left = left.wait(1.0)

    assert carried == b"date\r"
    assert was_left


def test_help_goes_to_standard_error(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    user, program = terminal
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp())
    with RawMode(program), SerialInput(program, lambda: None) as serial:
        os.write(user, ESCAPE + b"h.")
        within_a_second(serial.reader)

    assert "Ctrl-a x" in capsys.readouterr().err


def test_escape_works_while_the_guest_reads_nothing(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    user, program = terminal
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp())
    left = threading.Event()
    with RawMode(program), SerialInput(program, left.set):
        written = 0
        while written < 3 * BACKLOG:
            written += os.write(user, b"x" * 4096)
        os.write(user, ESCAPE + b"x")
        was_left = left.wait(5.0)

    assert was_left


def test_end_of_context_stops_a_blocked_thread(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with SerialInput(reader, lambda: None) as serial:
        os.write(writer, b"." * 60_000)
        os.write(writer, b"." * 5_000)
    os.close(writer)

    assert not serial._thread.is_alive()
