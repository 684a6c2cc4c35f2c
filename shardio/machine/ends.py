"""How a machine ends, from what its supervisor reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shardio.machine.statistics import ExitInfo
from shardio.vcpu import VcpuState, VcpuWorker

_REASONS = {
    VcpuState.SHUTDOWN: "shutdown",
    VcpuState.SYSTEM: "system event",
    VcpuState.FAILED: "failed",
    VcpuState.BROKEN: "failed",
}


def end_by(kind: str, value: Any, workers: Sequence[VcpuWorker]) -> ExitInfo | None:
    """The end that an event of the supervisor is (`shardio.supervisor.loop.Event`); None where it is none."""
    match kind:
        case "exit":
            return ExitInfo("exit", status=value)
        case "reset":
            return ExitInfo("reset")
        case "failure":
            return ExitInfo("error", detail=str(value))
    worker = next((worker for worker in workers if worker.index == value), None)
    if worker is not None and worker.state in _REASONS:
        return ExitInfo(_REASONS[worker.state], vcpu=value, detail=worker.describe_end())
    if worker is not None and all(other.state is VcpuState.HALTED for other in workers):
        return ExitInfo("halted", vcpu=value)
    return None
