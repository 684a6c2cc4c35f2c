"""`shardio` with standard streams that are closed, full, or whose reader is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shardio.cli.streams import drain, give_up, open_closed, say
from tests.guests.build import guest

pytestmark = pytest.mark.timeout(60)

CODE = 42 << 1 | 1
CLOSED = ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"]
# Output is buffered, as it is for most: what fails then fails late.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}


def shardio(*words: object, redirection: str = "") -> subprocess.CompletedProcess[bytes]:
    """The command to its end, its streams redirected as the shell is told."""
    command = [sys.executable, "-m", "shardio", *map(str, words)]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *command],
        env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """The hello guest; it ends with status 42 from an exit port that is not raw."""
    file = tmp_path / "hello.bin"
    file.write_bytes(guest("hello", EXIT_CODE=42))
    return file


@contextmanager
def unread() -> Iterator[int]:
    """The writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


@pytest.mark.kvm
@pytest.mark.parametrize("redirection", [">&-", "2>&-", CLOSED[-1], ">/dev/full", "2>/dev/full"])
def test_a_machine_runs_whatever_its_streams_are(hello: Path, redirection: str) -> None:
    done = shardio("run", "--image", hello, redirection=redirection)

    assert (done.returncode, b"Traceback" in done.stderr) == (CODE, False), done.stderr


@pytest.mark.kvm
def test_a_machine_ends_as_its_guest_does_where_nobody_reads_the_table(hello: Path) -> None:
    words = [sys.executable, "-m", "shardio", "run", "--image", str(hello)]
    with unread() as nobody:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=nobody, env=ENVIRONMENT, check=False)

    assert (done.returncode, b"Hello" in done.stdout) == (CODE, True)


@pytest.mark.parametrize("redirection", CLOSED)
def test_what_is_closed_is_opened(redirection: str) -> None:
    done = shardio("--version", redirection=redirection)

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("words", [["--help"], ["doctor", "--json"]])
def test_output_without_room_is_one_error(words: list[str]) -> None:
    done = shardio(*words, redirection=">/dev/full")

    assert done.returncode == 2
    assert done.stderr.startswith(b"shardio: error: No space left on device")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_an_error_that_nobody_takes_has_its_status(redirection: str) -> None:
    assert shardio("run", "/nonexistent", redirection=redirection).returncode == 2


def test_help_without_a_reader_ends_as_sigpipe_would() -> None:
    with unread() as nobody:
        done = subprocess.run(
            [sys.executable, "-m", "shardio", "--help"],
            stdout=nobody, stderr=subprocess.PIPE, env=ENVIRONMENT, check=False,
        )  # fmt: skip

    assert (done.returncode, done.stderr) == (141, b"")


def test_streams_that_are_open_stay_as_they_are() -> None:
    before = [os.fstat(fd).st_ino for fd in range(3)], sys.stdin, sys.stdout, sys.stderr

    open_closed()

    assert ([os.fstat(fd).st_ino for fd in range(3)], sys.stdin, sys.stdout, sys.stderr) == before


@pytest.mark.parametrize("lose", [give_up, drain])
def test_what_a_lost_stream_holds_goes_nowhere(lose: Callable[[object], None]) -> None:
    with unread() as nobody, os.fdopen(os.dup(nobody), "w") as stream:
        stream.write("text")

        lose(stream)

        assert os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))


def test_a_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("one\ntwo")

    assert capsys.readouterr().err == "one two\n"
