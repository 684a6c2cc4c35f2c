"""shardio.cli: the dispatcher, and that every mistake is one line with its hint and exit status 2."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from shardio.cli import COMMANDS, complain, main
from shardio.errors import HostError
from shardio.version import full_version

UART = "shardio.devices:Uart16550"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["COMMAND"]),
        (["rnu"], ['unknown command "rnu"', 'did you mean "run"?']),
        (["run"], ["nothing to run", "image"]),
        (["run", "--imgae", "x"], ["--imgae", 'did you mean "--image"?']),
        (["run", "--image"], ["--image"]),
        (["run", "none.toml"], ["none.toml", "No such file"]),
        (["run", "--image", "x", "--vcpus", "two"], ["--vcpus"]),
        (["run", "--image", "x", "--vcpus", "0"], ["[machine] vcpus"]),
        (["run", "--image", "x", "--entry", "start"], ["[machine] entry", '"start" is no number']),
        (["run", "--image", "x", "--memory", "lots"], ["[machine] memory", '"64M"']),
        (["run", "--image", "x", "--mode", "huge"], ["[machine] mode", "huge"]),
        (["run", "--image", "x", "--device", "Uart"], ["'Uart' names no device"]),
        (["run", "--image", "x", "--device", f"{UART},pio"], ['"pio" is no KEY=VALUE']),
        (["run", "--image", "x", "--device", f"{UART},iqr=4"], ['knows no "iqr"', 'did you mean "irq"?']),
        (["doctor", "--jsno"], ["--jsno", 'did you mean "--json"?']),
    ],
)
def test_mistake_is_one_line(words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status = main(words)

    printed = capsys.readouterr()
    assert status == 2
    assert printed.out == ""
    assert printed.err.startswith("shardio: error: ")
    assert printed.err.count("\n") == 1
    assert printed.err.rstrip().endswith(")")
    assert [part for part in parts if part not in printed.err] == []


def test_mistyped_image_is_what_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "m.toml"
    file.write_text('[machine]\nimgae = "guest.bin"\n')

    status = main(["run", str(file)])

    assert (status, 'did you mean "image"?' in capsys.readouterr().err) == (2, True)


@pytest.mark.parametrize(
    ("text", "part"),
    [("machine = 1", "is no table"), ("device = 3", "is no list"), ("[[machine]]", "is no table")],
)
def test_misshapen_file_is_one_line(
    tmp_path: Path, text: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.toml"
    file.write_text(text)

    status = main(["run", str(file), "--image", "x"])

    assert (status, part in capsys.readouterr().err) == (2, True)


def test_overlap_in_a_file_names_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "m.toml"
    file.write_text(
        f"""
        [machine]
        image = "x"
        [[device]]
        type = "{UART}"
        pio = 0x3f8
        name = "com1"
        [[device]]
        type = "{UART}"
        pio = 0x3fc
        name = "other"
        """
    )

    status = main(["run", str(file)])

    printed = capsys.readouterr().err
    assert status == 2
    assert "device other at PIO [0x3fc, 0x403] overlaps device com1 at PIO [0x3f8, 0x3ff]" in printed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"usage: shardio {command}" in capsys.readouterr().out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0

    printed = capsys.readouterr().out
    assert [command for command in COMMANDS if command not in printed] == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"shardio {full_version()}\n"


def test_complaint_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    error = HostError("first\nsecond", "mend\nit")

    assert complain(error.message, error.hint) == 2
    assert capsys.readouterr().err == "shardio: error: first second (mend it)\n"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "MemoryError"),
        (ImportError("x.so: failed to map segment"), "ImportError: x.so: failed to map segment"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
    ],
)
def test_a_host_without_room_is_one_line(
    error: Exception, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(words: list[str]) -> None:
        raise error

    monkeypatch.setattr("shardio.cli._parse", failing)

    assert main(["run"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"shardio: error: {text} (")
    assert "ulimit" in printed
