"""`shardio run --console pty|unix:PATH`: who reads it, who types, who leaves and comes again."""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shardio.cli.far_console import KEPT, FarConsole
from shardio.errors import ConfigError
from tests.cli.test_script import DIALOGUE
from tests.guests.build import program

PATIENCE_S = 20.0


def read_from(fd: int, count: int) -> bytes:
    """`count` bytes, waited for."""
    got = b""
    while len(got) < count:
        ready, _, _ = select.select([fd], [], [], PATIENCE_S)
        assert ready, got
        got += os.read(fd, count - len(got))
    return got


def client_of(path: str | Path) -> socket.socket:
    """Somebody who comes."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE_S)
    client.connect(str(path))
    return client


def test_a_client_of_the_socket_reads_and_types(tmp_path: Path) -> None:
    with FarConsole(f"unix:{tmp_path / 'line'}") as far, client_of(far.path) as client:
        os.write(far.writer, b"login: ")
        client.sendall(b"root\n")

        assert read_from(client.fileno(), 7) == b"login: "
        assert read_from(far.reader, 5) == b"root\n"


def test_whoever_comes_later_sees_what_was_said(tmp_path: Path) -> None:
    with FarConsole(f"unix:{tmp_path / 'line'}") as far:
        os.write(far.writer, b"one ")
        with client_of(far.path) as first:
            assert read_from(first.fileno(), 4) == b"one "
        os.write(far.writer, b"two ")
        with client_of(far.path) as second:
            os.write(far.writer, b"three")
            assert read_from(second.fileno(), 9) == b"two three"


def test_of_much_that_nobody_reads_the_end_is_kept(tmp_path: Path) -> None:
    said = bytes(range(256)) * (2 * KEPT // 256)
    with FarConsole(f"unix:{tmp_path / 'line'}") as far:
        os.write(far.writer, said[:KEPT])
        os.write(far.writer, said[KEPT:])
        os.write(far.writer, b"end")
        with client_of(far.path) as client:
            got = b""
            while not got.endswith(b"end"):
                got += client.recv(4096)
    assert len(got) <= KEPT + len(said)
    assert (said + b"end").endswith(got)


def test_a_pseudo_terminal_reads_and_types() -> None:
    with FarConsole("pty") as far:
        os.write(far.writer, b"login: ")
        terminal = os.open(far.path, os.O_RDWR | os.O_NOCTTY)
        os.write(terminal, b"root\r")

        assert read_from(terminal, 7) == b"login: "
        assert read_from(far.reader, 5) == b"root\r"
        os.close(terminal)


def test_the_socket_is_its_owners_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "line"
    with FarConsole(f"unix:{path}"):
        mode = path.stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert not path.exists()


def test_a_socket_that_a_dead_program_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "line"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with FarConsole(f"unix:{path}"), client_of(path) as client:
        assert client.fileno() >= 0


def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "line"
    with FarConsole(f"unix:{path}"), pytest.raises(ConfigError, match="another program listens"):
        FarConsole(f"unix:{path}")


def test_a_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "line"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="unix"):
        FarConsole(f"unix:{path}")
    assert path.read_text() == "precious"


@pytest.mark.parametrize("where", ["tcp:1234", "unix:", "", "unix:/nowhere/line", "unix:/" + "x" * 200])
def test_what_cannot_be_is_refused(where: str) -> None:
    with pytest.raises(ConfigError):
        FarConsole(where)


@pytest.mark.machine
def test_a_guest_talks_on_a_socket(tmp_path: Path) -> None:
    image, path = tmp_path / "dialogue.bin", tmp_path / "line"
    image.write_bytes(program(DIALOGUE))
    words = ["run", "--image", image, "--console", f"unix:{path}", "--timeout", PATIENCE_S, "--quiet"]
    command = [sys.executable, "-m", "shardio", *map(str, words)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as run:
        deadline = time.monotonic() + PATIENCE_S
        while not path.exists():
            assert run.poll() is None
            assert time.monotonic() < deadline
            select.select([], [], [], 0.01)
        with client_of(path) as client:
            client.sendall(b"me\r")
            said = read_from(client.fileno(), 9)
        run.send_signal(signal.SIGTERM)
        output, errors = run.communicate(timeout=PATIENCE_S)
    assert (said, output) == (b"name? me!", b"")
    assert f"the console is {path}".encode() in errors


def test_a_script_needs_the_console_on_stdio(tmp_path: Path) -> None:
    image = tmp_path / "dialogue.bin"
    image.write_bytes(program(DIALOGUE))
    words = ["run", "--image", str(image), "--console", "pty", "--expect", "x"]
    done = subprocess.run(
        [sys.executable, "-m", "shardio", *words], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"--expect and --send are for the console on stdio" in done.stderr
