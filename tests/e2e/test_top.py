"""`shardio top` on a machine that runs: once, as JSON, and in a terminal until it ends or the user leaves."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shardio import Machine
from tests.e2e.support import PATIENCE_S, machine, read_until, until
from tests.guests.build import program

NAME = f"top-{os.getpid()}"
LOOP = """
    .code16
next:
    in $0x71, %al
    in $0x80, %al
    jmp next
"""


@contextmanager
def running() -> Iterator[Machine]:
    with machine(shards=1) as vm:
        vm.load(program(LOOP))
        vm.add("shardio.devices:CmosRtc", pio=0x70, name="clock")
        vm.control(NAME)
        vm.start()
        until(lambda: vm.statistics().vcpus[0].unclaimed_reads > 0, "the guest's first read")
        yield vm


def top(*words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "shardio", "top", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


@contextmanager
def in_terminal() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command in a terminal of 80 x 24: its process, and the user's end."""
    user, program_end = pty.openpty()
    fcntl.ioctl(program_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    line = [sys.executable, "-m", "shardio", "top", NAME, "--interval", "0.2"]
    with subprocess.Popen(
        line, stdin=program_end, stdout=program_end, stderr=program_end, start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(program_end)
        try:
            read_until(user, b"v screen")  # the last line's end
            yield process, user
        finally:
            process.kill()
            os.close(user)


@pytest.mark.machine
def test_once_as_json_and_as_text() -> None:
    with running():
        found = json.loads(top(NAME, "--once", "--json", "--interval", "0.3").stdout)
        text = top(NAME, "--once", "--interval", "0.1").stdout

    (vcpu,), (shard,) = found["vcpus"], found["shards"]
    clock = next(device for device in found["devices"] if device["name"] == "clock")
    assert (found["schema"], found["name"], found["state"]) == (1, NAME, "running")
    assert vcpu["exits"]["IO"] > 0
    assert vcpu["unclaimed_per_s"] > 0
    assert vcpu["last_unclaimed"] == "read of 1 byte at pio 0x80"
    assert clock["reads_per_s"] > 0
    assert 0 < clock["wait_p50_ns"] <= clock["wait_p99_ns"]
    assert 0 < clock["wait_share"] <= 1
    assert shard["cpu"] > 0
    assert text.startswith(f"shardio top - {NAME} (pid {os.getpid()})  running  over 0.")
    assert "\nclock " in text
    assert "the last: read of 1 byte at pio 0x80" in text


def test_it_follows_the_terminals_size_and_q_leaves_and_the_machine_runs_on() -> None:
    with running() as vm, in_terminal() as (process, user):
        fcntl.ioctl(user, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        process.send_signal(signal.SIGWINCH)
        read_until(user, b"irq/s")  # has moved to the right
        os.write(user, b"q")

        assert process.wait(PATIENCE_S) == 0
        assert vm.wait(0) is None


def test_ctrl_c_leaves() -> None:
    with running(), in_terminal() as (process, _):
        process.send_signal(signal.SIGINT)

        assert process.wait(PATIENCE_S) == 0


def test_sigterm_gives_the_terminal_back() -> None:
    with running(), in_terminal() as (process, user):
        before = termios.tcgetattr(user)[3] & termios.ECHO
        process.terminate()
        status = process.wait(PATIENCE_S)

        assert (before, status) == (0, 128 + signal.SIGTERM)
        assert termios.tcgetattr(user)[3] & termios.ECHO


def test_the_machines_end_is_its_end() -> None:
    with running() as vm, in_terminal() as (process, user):
        vm.stop()
        read_until(user, f"shardio: machine {NAME} (pid {os.getpid()}) has ended".encode())

        assert process.wait(PATIENCE_S) == 0
