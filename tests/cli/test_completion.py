"""Completion, asked of the shells themselves, with a machine that seems to run: a socket of its name."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardio.cli import COMMANDS, main
from shardio.cli.completion import SHELLS

NAME = f"completed-{os.getpid()}"


@pytest.fixture
def scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder with the script of each shell, by its name."""
    for shell in SHELLS:
        assert main(["completion", shell]) == 0
        (tmp_path / shell).write_text(capsys.readouterr().out)
    return tmp_path


@pytest.fixture
def machine() -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0shardio/{os.getpid()}/{NAME}")
        listener.listen()
        yield


def bash(scripts: Path, *words: str) -> list[str]:
    """What bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in ("shardio", *words))
    script = (
        f"source {scripts / 'bash'}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _shardio; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.split()


def fish(scripts: Path, line: str) -> list[str]:
    """What fish offers for the end of a line."""
    script = f"source {scripts / 'fish'}; complete -C '{line}'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    return [offered.split("\t")[0] for offered in done.stdout.splitlines()]


needs_fish = pytest.mark.skipif(not shutil.which("fish"), reason="needs fish")
needs_zsh = pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ru"], {"run"}),
        (["run", "--kern"], {"--kernel"}),
        (["run", "--log-level", "w"], {"warning"}),
        (["bench", "qu"], {"quick"}),
        (["bench", "quick", "--jso"], {"--json"}),
        (["completion", ""], set(SHELLS)),
        (["run", "--kernel", ""], set()),  # bash offers files then
    ],
)
def test_bash_completes(scripts: Path, words: list[str], offered: set[str]) -> None:
    assert set(bash(scripts, *words)) == offered


def test_bash_knows_every_command(scripts: Path) -> None:
    assert set(bash(scripts, "")) == {*COMMANDS, "--help", "--version"}


def test_bash_knows_the_machines_that_run(scripts: Path, machine: None) -> None:
    assert NAME in bash(scripts, "stop", "")
    assert NAME in bash(scripts, "top", NAME[:9])
    assert NAME not in bash(scripts, "run", "")


@needs_fish
def test_fish_completes(scripts: Path, machine: None) -> None:
    assert set(COMMANDS) <= set(fish(scripts, "shardio "))
    assert fish(scripts, "shardio run --kern") == ["--kernel"]
    assert fish(scripts, "shardio run --log-level w") == ["warning"]
    assert "quick" in fish(scripts, "shardio bench q")
    assert NAME in fish(scripts, "shardio stop c")


@needs_zsh
def test_zsh_completes(scripts: Path, machine: None) -> None:
    """_describe and _arguments are zsh's own; what they are given is seen here."""
    script = f"""
        compdef() {{ }}
        _describe() {{ local -a found; found=("${{(@P)2}}"); print -l -- "${{found[@]%%:*}}" }}
        _arguments() {{ print -l -- "$@" }}
        source {scripts / "zsh"}
        CURRENT=2; words=(shardio r); _shardio
        CURRENT=3; words=(shardio run --kern); _shardio
        CURRENT=3; words=(shardio stop c); _shardio; _shardio_machines
    """
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, check=True, timeout=30)

    lines = done.stdout.splitlines()
    assert set(COMMANDS) <= set(lines)
    assert any(line.startswith("*--kernel[boot this kernel") and line.endswith(":_files") for line in lines)
    assert "1:machine:_shardio_machines" in lines
    assert NAME in lines
    assert done.stderr == ""


def test_a_shell_that_is_not_known_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "csh"]) == 2
    assert "bash" in capsys.readouterr().err
