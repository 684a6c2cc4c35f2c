"""`breakpoint()` in a device under `shardio run`, at a pseudo-terminal."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.machine

PATIENCE_S = 60.0
IN_80_OUT_EXIT = b"\xe4\x80\xe6\xf4"
"""in al, 0x80; out 0xF4, al: the machine's status is what the device gave."""
DEVICE = '''
from shardio import MutDevicePio


class Breaker(MutDevicePio):
    def read(self, offset, size):
        value = 5
        breakpoint()
        value += 1
        return value

    def write(self, offset, size, value):
        breakpoint()
'''
CONFIG = """
[machine]
image = "guest.bin"
shards = 1
hang_deadline = 0.2
irqchip = false

[[device]]
type = "breaker:Breaker"
pio = 0x80
size = 1
"""


class User:
    """The user's end of a terminal: what has come is `seen`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.seen = ""

    def until(self, text: str) -> None:
        """Read until `text` has come behind what was waited for before."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {text!r}, only {self.seen!r}"
            self.seen += os.read(self.fd, 4096).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def type(self, text: str) -> None:
        """Keys."""
        os.write(self.fd, text.encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "guest.bin").write_bytes(IN_80_OUT_EXIT)
    (tmp_path / "breaker.py").write_text(DEVICE)
    (tmp_path / "machine.toml").write_text(CONFIG)
    return tmp_path


def run(folder: Path, *words: str, stdin: int, stderr: int) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "shardio", "run", str(folder / "machine.toml"), "--quiet", *words]
    exit_port = ("--device", "shardio.devices:ExitPort,pio=0xf4,raw=true")
    return subprocess.Popen([*line, *exit_port], stdin=stdin, stdout=subprocess.DEVNULL, stderr=stderr)


def is_raw(terminal: int) -> bool:
    return not termios.tcgetattr(terminal)[3] & termios.ICANON


def test_pdb_has_the_terminal_until_continue_and_nobody_is_blamed(
    folder: Path, terminal: tuple[int, int]
) -> None:
    user = User(terminal[0])
    with run(folder, stdin=terminal[1], stderr=terminal[1]) as running:
        try:
            user.until("breakpoint in shard0: Breaker.read (")
            user.until("the terminal is pdb's until continue or Ctrl-D")
            user.until("(Pdb) ")
            assert not is_raw(terminal[1])
            began = time.monotonic()
            while time.monotonic() < began + 1.0:  # five times the deadline for a hang
                user.type("p value * 1000\n")
                user.until("5000")
                user.until("(Pdb) ")
            user.type("value = 40\n")
            user.until("(Pdb) ")
            user.type("n\n")
            user.until("return value")
            user.until("(Pdb) ")
            user.type("c\n")
            user.until("the terminal is the guest's console again")
            assert running.wait(PATIENCE_S) == 41
        finally:
            running.kill()
    assert "killing" not in user.seen


@pytest.mark.parametrize("keys", ["\x04", "q\n", "n\nn\nn\nn\nc\n"], ids=["ctrl-d", "quit", "past the end"])
def test_what_ends_the_prompt_lets_the_handler_go_on(
    folder: Path, terminal: tuple[int, int], keys: str
) -> None:
    user = User(terminal[0])
    with run(folder, stdin=terminal[1], stderr=terminal[1]) as running:
        try:
            user.until("(Pdb) ")
            for key in keys.splitlines(keepends=True):
                user.type(key)
            assert running.wait(PATIENCE_S) == 6
        finally:
            running.kill()


def test_without_a_terminal_it_is_passed_over_with_a_line_that_says_how(folder: Path) -> None:
    with run(folder, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        _, errors = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 6
    assert b"breakpoint() at Breaker.read (" in errors
    assert b"is passed over: there is no terminal; run it by shardio run on a terminal" in errors


def test_pythonbreakpoint_decides_as_in_any_program(
    folder: Path, terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONBREAKPOINT", "0")
    user = User(terminal[0])
    with run(folder, stdin=terminal[1], stderr=terminal[1]) as running:
        assert running.wait(PATIENCE_S) == 6
    assert "breakpoint" not in user.seen


def test_a_machine_that_is_stopped_at_a_prompt_gives_the_terminal_back(
    folder: Path, terminal: tuple[int, int]
) -> None:
    before = termios.tcgetattr(terminal[1])
    user = User(terminal[0])
    with run(folder, stdin=terminal[1], stderr=terminal[1]) as running:
        try:
            user.until("(Pdb) ")
            running.terminate()
            assert running.wait(PATIENCE_S) == 128 + 15
        finally:
            running.kill()
    assert termios.tcgetattr(terminal[1]) == before
