"""Names of processes, and ending those that were started here."""

from __future__ import annotations

import contextlib
import os
import select
import signal


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


def set_process_name(name: str) -> None:
    """What `ps -o comm` and `top` show of this process: at most 15 bytes (PR_SET_NAME)."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb") as comm:
        comm.write(name.encode()[:15])
