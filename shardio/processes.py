"""Names of processes, the CPU time that they have had, and ending those that were started here."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time

_CPUCLOCK_SCHED = 2
"""Of a process's CPU clock, as clock_getcpuclockid(3) makes its number: MAKE_PROCESS_CPUCLOCK in Linux."""
_GUEST_TIME = 40
"""The place of `guest_time` in proc(5)'s `stat`, counted from the state, which stands behind the name."""


def kill(pidfd: int, pid: int) -> None:
    """SIGKILL to the process of `pidfd`, whose number is `pid`, unless it is dead already.

    Where a filter refuses pidfd_send_signal(2) (seccomp in some containers), by kill(2): while the pidfd is
    not readable the process lives, so that its number is nobody else's.
    """
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return
    except OSError:
        dead = select.poll()
        dead.register(pidfd, select.POLLIN)
        if not dead.poll(0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def cpu_clock(pid: int) -> int:
    """The clock of time.clock_gettime that counts a process's CPU time."""
    return (~pid << 3) | _CPUCLOCK_SCHED


def cpu_time_ns(pid: int) -> int:
    """Nanoseconds of CPU time that a process has had; 0 for pid 0, and where the kernel does not tell."""
    try:
        return time.clock_gettime_ns(cpu_clock(pid)) if pid else 0
    except OSError:
        return 0


def guest_time_ns(pid: int) -> int:
    """How much of it the process has spent in guest code of KVM, as the kernel counts it in clock ticks; 0
    for pid 0, and where the kernel does not tell.
    """
    if not pid:
        return 0
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read(4096).rpartition(b") ")[2].split()
    except OSError:
        return 0
    return int(fields[_GUEST_TIME]) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def set_process_name(name: str) -> None:
    """What `ps -o comm` and `top` show of this process: at most 15 bytes (PR_SET_NAME)."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb") as comm:
        comm.write(name.encode()[:15])
