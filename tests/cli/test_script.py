"""`shardio run --expect ... --send ...`: a console that a script uses."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shardio.cli.run_options import add_arguments
from shardio.cli.script import Step, unescaped
from tests.guests.build import program

# Says "name? ", repeats what it is sent up to a carriage return, says "!" and halts for ever.
DIALOGUE = r"""
    .code16
        mov $question, %si
    say:
        mov %cs:(%si), %al
        test %al, %al
        jz listen
        mov $0x3f8, %dx
        out %al, %dx
        inc %si
        jmp say
    listen:
        mov $0x3fd, %dx
        in %dx, %al
        test $1, %al
        jz listen
        mov $0x3f8, %dx
        in %dx, %al
        cmp $13, %al
        je enough
        out %al, %dx
        jmp listen
    enough:
        mov $'!', %al
        out %al, %dx
        mov $0x3fd, %dx
    spin:
        in %dx, %al
        test $1, %al
        jz spin
        mov $0xf4, %dx
        mov $3, %al
        out %al, %dx
        hlt
    question:
        .asciz "name? "
"""


@pytest.fixture
def dialogue(tmp_path: Path) -> Path:
    file = tmp_path / "dialogue.bin"
    file.write_bytes(program(DIALOGUE))
    return file


def run(image: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """The guest under these steps; its standard input says something that nobody is to hear."""
    command = [sys.executable, "-m", "shardio", "run", "--image", str(image), "--quiet", *words]
    return subprocess.run(command, input=b"unheard\r", capture_output=True, timeout=50)


def parsed(*words: str) -> list[Step]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    steps: list[Step] = parser.parse_args(words).script
    return steps


def test_steps_keep_the_order_of_the_command_line() -> None:
    steps = parsed("--send", "a", "--expect", "b", "--expect", r"c\r", "--send", "d")

    assert steps == [Step("send", b"a"), Step("expect", b"b"), Step("expect", b"c\r"), Step("send", b"d")]
    assert parsed() == []


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (r"\n\r\t\e\\", b"\n\r\t\x1b\\"),
        (r"\x00\xff", b"\0\xff"),
        ("\N{EURO SIGN}", b"\xe2\x82\xac"),
        (r"\\n", b"\\n"),
    ],
)
def test_escapes(text: str, data: bytes) -> None:
    assert unescaped(text) == data


@pytest.mark.parametrize(("text", "message"), [("", "no text"), (r"\q", "no escape"), (r"\xg0", "no escape")])
def test_what_is_no_text_is_refused(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parsed("--expect", text)

    assert left.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.machine
def test_a_dialogue_that_ends_with_what_is_expected(dialogue: Path) -> None:
    done = run(dialogue, "--expect", "name? ", "--send", r"world\r", "--expect", "world!")

    assert (done.returncode, done.stdout, done.stderr) == (0, b"name? world!", b"")


@pytest.mark.machine
def test_after_the_last_text_that_is_sent_the_guest_has_the_last_word(dialogue: Path) -> None:
    done = run(dialogue, "--expect", "name? ", "--send", r"w\r", "--expect", "w!", "--send", "x")

    assert (done.returncode, done.stdout) == (3 << 1 | 1, b"name? w!")


@pytest.mark.machine
def test_what_does_not_come_is_a_failure_that_tells_what_came(dialogue: Path) -> None:
    done = run(dialogue, "--expect", "name? ", "--send", r"w\rx", "--expect", "W!", "--timeout", "40")

    assert done.returncode == 1
    assert done.stderr.splitlines() == [b"shardio: the guest did not print 'W!'; its last: 'w!'"]


@pytest.mark.machine
def test_a_guest_that_does_not_end_in_time_is_stopped(dialogue: Path) -> None:
    done = run(dialogue, "--send", "w", "--timeout", "0.2")

    assert done.returncode == 124
    assert b"name? w".startswith(done.stdout)
    assert done.stderr == b"shardio: the guest had not ended after 0.2 s\n"


@pytest.mark.parametrize("value", ["0", "-1", "inf", "soon"])
def test_what_is_no_time_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(f"--timeout={value}")

    assert "--timeout" in capsys.readouterr().err


def test_the_steps_do_not_change_the_descriptors(capfd: pytest.CaptureFixture[str]) -> None:
    from shardio.cli.script import Script

    before = os.fstat(1)
    with Script([Step("expect", b"b"), Step("expect", b"z")], lambda: None) as script:
        os.write(1, b"abc")
    after = os.fstat(1)

    assert (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino)
    assert (capfd.readouterr().out, script.missing) == ("abc", Step("expect", b"z"))
    assert script.complaint() == "the guest did not print 'z'; its last: 'c'"
