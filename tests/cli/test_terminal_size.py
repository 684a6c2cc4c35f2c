"""The size of the user's terminal: told at the start and at each SIGWINCH, to the consoles that are on it."""

from __future__ import annotations

import fcntl
import os
import queue
import signal
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from shardio.cli import terminal_size
from shardio.cli.terminal_size import SizeWatch
from tests.e2e.ordinary import ROOT
from tests.e2e.support import read_until

PATIENCE_S = 20.0


def set_size(fd: int, columns: int, rows: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def test_the_size_is_told_now_and_when_it_changes(terminal: tuple[int, int]) -> None:
    told: queue.Queue[tuple[int, int]] = queue.Queue()
    set_size(terminal[1], 80, 25)
    with SizeWatch(terminal[1], lambda *size: told.put(size)):
        first = told.get(timeout=PATIENCE_S)
        set_size(terminal[1], 132, 43)
        signal.raise_signal(signal.SIGWINCH)
        second = told.get(timeout=PATIENCE_S)

    assert (first, second) == ((80, 25), (132, 43))
    assert signal.getsignal(signal.SIGWINCH) is signal.SIG_DFL


def test_a_terminal_without_a_size_and_what_is_no_terminal_tell_nothing(terminal: tuple[int, int]) -> None:
    told: list[tuple[int, int]] = []
    set_size(terminal[1], 0, 0)
    with open(os.devnull) as null:
        for fd in (terminal[1], null.fileno()):
            with SizeWatch(fd, lambda *size: told.append(size)):
                signal.raise_signal(signal.SIGWINCH)  # its default action is to be ignored

    assert told == []


def test_one_who_does_not_listen_keeps_nobody_from_leaving(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal_size, "JOIN_S", 0.01)
    set_size(terminal[1], 80, 25)
    asked, heard = threading.Event(), threading.Event()

    def deaf(*_: int) -> None:
        asked.set()
        heard.wait(PATIENCE_S)

    with SizeWatch(terminal[1], deaf) as watch:
        assert asked.wait(PATIENCE_S)
    heard.set()
    watch._thread.join(PATIENCE_S)
    os.close(watch._changed)


@pytest.mark.machine
def test_shardio_run_tells_its_devices(terminal: tuple[int, int], tmp_path: Path) -> None:
    image = tmp_path / "guest.bin"
    image.write_bytes(b"\xeb\xfe")
    set_size(terminal[1], 50, 20)
    device = "tests.e2e.devices:Sized,mmio=0xd0000000"
    line = [sys.executable, "-m", "shardio", "run", "--image", image, "--quiet", "--device", device]
    with subprocess.Popen(
        line, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=terminal[1], stderr=subprocess.PIPE
    ) as process:
        try:
            first = read_until(terminal[0], b"50x20")
            set_size(terminal[1], 77, 20)
            process.send_signal(signal.SIGWINCH)
            status = process.wait(PATIENCE_S)
        finally:
            process.kill()

    assert (first, status) == (b"50x20", 77)
