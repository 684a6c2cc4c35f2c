"""Ctrl-C: kept from what is started, obeyed between blocks, and once more what hangs ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from shardio.bench.interrupt import Interrupt

PATIENCE_S = 10.0


def press(interrupt: Interrupt) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    while not interrupt.requested:
        os.sched_yield()


def test_the_first_one_waits_for_a_check() -> None:
    with Interrupt() as interrupt:
        interrupt.check()
        press(interrupt)
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()


def test_another_one_breaks_off_what_waits() -> None:
    """In a program without other threads, as the command is: one of them might take the signal."""
    code = f"""if True:
        import os, signal, threading
        from shardio.bench.interrupt import Interrupt
        with Interrupt() as interrupt:
            interrupt.requested = True
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                threading.Event().wait({PATIENCE_S})
            except KeyboardInterrupt:
                print("broken off")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30.0)

    assert done.stdout == "broken off\n", done.stderr


def test_what_is_started_is_not_reached() -> None:
    code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    with Interrupt():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "True"


def test_everything_is_as_before() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGUSR1)
    with Interrupt():
        pass

    assert before == (signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGUSR1))
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
