"""How a run ended: the exit status of `shardio run`, and what it says of an end that is no orderly one."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from shardio.cli.stop import StopRequests
from shardio.cli.streams import give_up, say
from shardio.cli.summary import console
from shardio.errors import ShardioError

if TYPE_CHECKING:
    from rich.console import Group

    from shardio.dispatcher import ExitInfo
    from shardio.machine import Machine
    from shardio.vcpu.report import VcpuReport

STDOUT, STDERR = 1, 2
TIMED_OUT = 124
"""The status that timeout(1) of the coreutils gives."""
# Ends that the guest chose, and so successes without a status of its own. The others get a line.
QUIET_ENDS = {"reset", "halted", "stopped"}
ORDERLY_ENDS = {*QUIET_ENDS, "system event"}
TRIPLE_FAULT = "shutdown"


def exit_status(
    ended: ExitInfo | None, stop: StopRequests, *, triple_fault_ok: bool = False
) -> int:
    """The status of the command: the guest's own, else 0 for a machine that was left or came to its end.

    A signal gives 128 and its number, as a shell would. Any other end is a failure: a line says which.
    """
    if stop.signal is not None:
        return 128 + stop.signal
    if ended is None:
        return 0
    if ended.status is not None:
        return ended.status
    if ended.reason not in QUIET_ENDS:
        which = "" if ended.vcpu is None else f"vCPU {ended.vcpu}: "
        more = f": {ended.detail}" if ended.detail else ""
        say(f"shardio: {which}{ended.reason}{more}")
    orderly = ended.reason in ORDERLY_ENDS or (triple_fault_ok and ended.reason == TRIPLE_FAULT)
    return 0 if orderly else 1


def warn_of_quarantine(ended: ExitInfo | None) -> None:
    """A line on standard error where devices were quarantined: the guest has seen all-ones there."""
    if ended is not None and ended.quarantined:
        names = ", ".join(ended.quarantined)
        say(f"shardio: quarantined, because their shards died of it: {names} (see their tracebacks above)")


def late_reports(vm: Machine) -> tuple[VcpuReport, ...]:
    """Where the vCPUs of a stopped machine are, but for those that never began."""
    found = []
    for index in range(vm.vcpus):
        with contextlib.suppress(ShardioError):  # one that was killed in the midst of a pause
            found.append(vm.examine(index))
    return tuple(report for report in found if report.mp_state != "uninitialized")


def print_table(table: Group) -> None:
    """Prints the table where somebody takes it: the status is the guest's, whoever listens."""
    try:
        if os.isatty(STDOUT) and os.isatty(STDERR):
            sys.stderr.write("\r\n")  # the guest's last line may have no end
        console(sys.stderr).print(table)
    except OSError:
        give_up(sys.stderr)
