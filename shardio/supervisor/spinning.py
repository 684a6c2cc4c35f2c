"""Finds vCPUs that keep a CPU busy and never leave the guest, and has a look at where they are.

Most of them compute. But an emulating KVM executes some instructions again and again without an end (VMCALL),
and nobody would be told. A look costs the guest an interruption in half a second, which it does not notice.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardio.supervisor.process_state import process_state
from shardio.vcpu import Vcpu, VcpuState

LOOK_EVERY_S = 0.5
BUSY_S = 0.1
"""CPU time without an exit that makes a vCPU worth a look. One that sleeps in HLT has none."""


class SpinWatch:
    """Of these vCPUs; the sequence may grow."""

    def __init__(self, vcpus: Sequence[Vcpu]) -> None:
        self._vcpus = vcpus
        self._seen: dict[int, tuple[int, int, float]] = {}
        self._looked_at = 0.0

    def look(self, now: float) -> None:
        """Inspect those that have spun since the last look; `now` in seconds of the monotonic clock."""
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        for vcpu in self._vcpus:
            exits = vcpu.exit_total
            if exits is None or vcpu.state is not VcpuState.RUNNING or not vcpu.pid:
                continue
            state = process_state(vcpu.pid)
            if state is None:
                continue
            before = self._seen.get(vcpu.index)
            if before is None or before[:2] != (vcpu.pid, exits):
                self._seen[vcpu.index] = (vcpu.pid, exits, state.cpu_s)
            elif state.cpu_s - before[2] >= BUSY_S:
                self._seen[vcpu.index] = (vcpu.pid, exits, state.cpu_s)
                vcpu.inspect()
