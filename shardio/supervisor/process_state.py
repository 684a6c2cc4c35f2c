"""What the kernel tells of a process that lives: whether it is stopped, and how much CPU time it has had."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from itertools import islice

from shardio.processes import cpu_clock

MOST_THREADS = 64
"""Threads of one process that are looked at."""


@dataclass(frozen=True, slots=True)
class ProcessState:
    """`stopped`: by a signal or a tracer. `runnable`: a thread of it runs, or would if it had a CPU.
    `cpu_s`: the CPU time that it has had, in seconds.
    """

    stopped: bool
    runnable: bool
    cpu_s: float


def process_state(pid: int) -> ProcessState | None:
    """The state of a process that is not reaped; None where the kernel does not tell."""
    try:
        main = _letter(f"/proc/{pid}/stat")
        if main in "Tt":
            return ProcessState(True, False, 0.0)
        cpu_s = time.clock_gettime(cpu_clock(pid))
        return ProcessState(False, main == "R" or _any_thread_runnable(pid), cpu_s)
    except OSError:
        return None


def _any_thread_runnable(pid: int) -> bool:
    with os.scandir(f"/proc/{pid}/task") as threads:
        for thread in islice(threads, MOST_THREADS):
            with contextlib.suppress(OSError):  # it has ended since
                if _letter(f"{thread.path}/stat") == "R":
                    return True
    return False


def _letter(path: str) -> str:
    """The state's letter in a `stat` file of proc(5), which stands behind the name in parentheses."""
    with open(path, "rb") as file:
        return chr(file.read(4096).rpartition(b") ")[2][0])
