"""Tells of accesses that nobody answers: counted by the vCPUs, logged here at a limited rate."""

from __future__ import annotations

import logging

from shardio.fabric.statistics import LastAccess, newest
from shardio.supervisor.context import Context

LOG_EVERY_S = 1.0

log = logging.getLogger("shardio.supervisor")


class UnclaimedLog:
    """What has been told so far, by vCPU."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._told: dict[int, int] = {}
        self._logged_at = 0.0

    def look(self, now: float) -> None:
        """Log what is new, at most once a second; `now` in seconds of the monotonic clock."""
        if now - self._logged_at <= LOG_EVERY_S:
            return
        self._logged_at = now
        for vcpu in self._context.vcpus:
            control = self._context.fabric.view.vcpu[vcpu.index]
            total = control.unclaimed_reads + control.unclaimed_writes + control.crossing
            new = total - self._told.get(vcpu.index, 0)
            if new:
                log.info(
                    "vCPU %d: %d accesses unclaimed, or past their range's end; the last: %s",
                    vcpu.index,
                    new,
                    newest(LastAccess.read(control.unclaimed), LastAccess.read(control.crossed)),
                )
            self._told[vcpu.index] = total
