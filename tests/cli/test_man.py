"""The manual page: every command and option is in it, and groff finds nothing wrong."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from shardio.cli import COMMANDS, STATUSES, command_parsers, main
from shardio.cli.man import page


def test_every_command_option_and_exit_status_is_in_it() -> None:
    text = "\n".join(page()).replace("\\-", "-")

    _, parsers = command_parsers(COMMANDS)
    actions = [action for parser in parsers.values() for action in parser._actions]
    options = {name for action in actions for name in action.option_strings}
    assert [name for name in COMMANDS if f".SS shardio {name}" not in text] == []
    assert [name for name in options if f"\\fB{name}\\fR" not in text] == []
    assert [status for status, _ in STATUSES if f".B {status}" not in text] == []


@pytest.mark.skipif(not shutil.which("groff"), reason="needs groff")
def test_groff_warns_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["man"]) == 0
    text = capsys.readouterr().out

    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-P-c"], input=text, capture_output=True, text=True, check=True
    )

    assert done.stderr == ""
    assert "shardio run --kernel vmlinux --initrd initrd.img --append 'console=ttyS0 panic=-1'" in done.stdout
    assert "'world\\r'" in done.stdout


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"]])
def test_exit_statuses_are_in_the_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0

    told = capsys.readouterr().out.partition("exit status:")[2]
    assert [status for status in ("0", "1", "2", "124", "128") if f"\n  {status}" not in told] == []
