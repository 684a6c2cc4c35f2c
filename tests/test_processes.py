"""Ending processes, where the usual system call is refused too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from shardio.processes import cpu_time_ns, guest_time_ns, kill


def refuse(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("refused", [False, True], ids=["pidfd", "kill"])
def test_a_process_is_ended_and_a_dead_one_left_alone(refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if refused:
        monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        pidfd = os.pidfd_open(process.pid)
        kill(pidfd, process.pid)

        assert process.wait() == -signal.SIGKILL
        kill(pidfd, process.pid)
        os.close(pidfd)


def test_a_number_that_is_another_processes_by_now_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    killed: list[object] = []
    monkeypatch.setattr(os, "kill", lambda *what: killed.append(what))
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pidfd = os.pidfd_open(process.pid)
    kill(pidfd, process.pid)
    os.close(pidfd)

    assert killed == []


def test_the_cpu_time_of_a_process_is_that_of_its_own_clock() -> None:
    before = time.process_time_ns()
    found = cpu_time_ns(os.getpid())

    assert before <= found <= time.process_time_ns()


@pytest.mark.parametrize("told", [cpu_time_ns, guest_time_ns])
def test_a_process_that_is_gone_has_had_none(told: Callable[[int], int]) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass

    assert (told(process.pid), told(0)) == (0, 0)


def test_a_process_that_runs_no_guest_has_no_guest_time() -> None:
    assert guest_time_ns(os.getpid()) == 0
