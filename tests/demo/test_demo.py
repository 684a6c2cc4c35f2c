"""The demo: its guest, the host's verdict on it, and that the verdict can be a bad one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shardio.cli import main
from shardio.cli.demo import verdict
from shardio.demo import Demo
from shardio.demo.assembler import AssemblerError, assemble
from shardio.devices.probes import fnv1a64
from shardio.dispatcher import ExitInfo
from shardio.errors import MachineError


@pytest.mark.machine
def test_the_guest_reads_what_the_host_calculates(tmp_path: Path) -> None:
    vcpus, shards = 2, 3
    demo = Demo(vcpus, shards, count=100)

    outcome = demo.run(output=f"file:{tmp_path / 'console'}")

    expected = demo.expected()
    lines = (tmp_path / "console").read_text().splitlines()
    assert outcome.ended == ExitInfo("exit", status=0)
    assert outcome.read == expected
    assert outcome.matches
    assert lines[1 : 1 + vcpus] == [f"guest: hello from vCPU {vcpu}" for vcpu in range(vcpus)]
    assert lines[1 + vcpus : -1] == [
        f"guest: vCPU {vcpu}: the device on shard {shard} has {expected[vcpu][shard]:016x}"
        for vcpu in range(vcpus)
        for shard in range(shards)
    ]
    assert lines[-1] == "guest: done"


@pytest.mark.machine
def test_shardio_demo_shows_banners_tables_and_verdict() -> None:
    command = [sys.executable, "-m", "shardio", "demo", "--count", "100"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "guest: hello from vCPU 1\n" in done.stdout
    assert "checksum 1.1" in done.stdout
    assert "all 4 checksums over 100 writes each match the host's" in done.stdout


@pytest.mark.machine
def test_a_wrong_checksum_is_told_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Demo, "expected", lambda self: [[0]])

    status = main(["demo", "--vcpus", "1", "--shards", "1", "--count", "10"])

    assert status == 1
    assert "the host expects 0x0000000000000000" in capsys.readouterr().out


@pytest.mark.machine
def test_a_guest_that_does_not_end_is_told_and_fails() -> None:
    demo = Demo(1, 1, count=50_000)

    outcome = demo.run(output="null", timeout=0.0)

    assert not outcome.matches
    assert verdict(demo, outcome)[0] == "the guest did not end in time"


def test_the_host_calculates_fnv_over_the_guest_s_sequence() -> None:
    state = 0x9E3779B9 * 1664525 + 1013904223 & 0xFFFFFFFF
    assert Demo(1, 1, count=1).expected() == [[fnv1a64(state.to_bytes(4, "little"))]]


@pytest.mark.parametrize("numbers", [(0, 1, 1), (11, 1, 1), (1, 0, 1), (1, 8, 1), (1, 1, 0)])
def test_numbers_that_make_no_demo_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(MachineError, match="use 1 to"):
        Demo(*numbers)


def test_a_missing_assembler_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(AssemblerError, match="as: is not installed") as caught:
        assemble()
    assert "binutils" in caught.value.hint


def test_a_source_that_does_not_assemble_is_told(tmp_path: Path) -> None:
    source = tmp_path / "bad.S"
    source.write_text("no such instruction\n")
    with pytest.raises(AssemblerError, match="no such instruction"):
        assemble(source)


def test_a_demo_that_is_killed_while_it_assembles_leaves_no_file(tmp_path: Path) -> None:
    tools, files = tmp_path / "tools", tmp_path / "files"
    tools.mkdir()
    files.mkdir()
    assembler = tools / "as"
    assembler.write_text("#!/bin/sh\nkill -KILL $PPID\n")
    assembler.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "TMPDIR": str(files)}

    command = [sys.executable, "-m", "shardio", "demo"]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False)

    assert done.returncode == -signal.SIGKILL
    assert list(files.iterdir()) == []
