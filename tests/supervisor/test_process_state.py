"""What is seen of a process: stopped, runnable, its CPU time."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from shardio.supervisor.process_state import ProcessState, process_state
from tests.e2e.support import until


@contextmanager
def running(code: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            yield process
        finally:
            process.kill()


def seen(process: subprocess.Popen[bytes]) -> ProcessState:
    state = process_state(process.pid)
    assert state is not None
    return state


def test_a_loop_is_runnable_and_has_cpu_time() -> None:
    with running("while True: pass") as process:
        until(lambda: seen(process).cpu_s > 0.2, "it has had CPU time")
        assert seen(process).runnable


def test_one_that_another_thread_keeps_busy_is_runnable() -> None:
    code = "import threading; threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()"
    with running(code) as process:
        until(lambda: seen(process).cpu_s > 0.2 and seen(process).runnable, "its thread is seen")


def test_one_that_sleeps_is_not_runnable_and_one_that_is_stopped_is_seen() -> None:
    with running("import signal; signal.pause()") as process:
        until(lambda: not seen(process).runnable, "it sleeps")
        process.send_signal(signal.SIGSTOP)
        until(lambda: seen(process).stopped, "it is stopped")
        process.send_signal(signal.SIGCONT)
        until(lambda: not seen(process).stopped, "it goes on")


def test_nothing_is_known_of_one_that_is_gone() -> None:
    with running("") as process:
        process.wait()
    assert process_state(process.pid) is None
