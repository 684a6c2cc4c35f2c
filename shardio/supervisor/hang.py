"""Kills the shard that a vCPU has waited for too long.

Facts. A shard hangs in many ways: its GIL held, an endless loop, SIGSTOP. It cannot be asked. What can be
seen is whether an access is unanswered (its mailbox still says REQUEST, or the ring of posted writes is
full), how much the shard has taken, and what the kernel tells of its process. A vCPU that is stopped after
the shard has answered waits for nobody. A shard that is suspended together with this process, or gets no CPU,
has had no time to answer; and one whose device stands at `breakpoint()` waits for its user.

Consequences. Time is counted for each shard, and only while it could have answered: no longer than a tick for
each look, so that a suspension of this process counts for nothing; and no more than the CPU time that it has
had where it is runnable, so that a starved one is not blamed. A shard hangs when a vCPU waits for it and it
has taken nothing for a deadline of that time; or when, however busy it is, the same access is unanswered for
(vCPUs + 1) deadlines. One that makes its devices has longer, unless it is stopped. Without a deadline,
whoever waits is told once of a shard that does not answer: it may be at a debugger's prompt.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from shardio._core import ffi, lib
from shardio.supervisor import events
from shardio.supervisor.context import Context
from shardio.supervisor.interpreter import Interpreter
from shardio.supervisor.process_state import ProcessState, process_state
from shardio.supervisor.shard_process import ShardProcess
from shardio.supervisor.stacks import access_of, ask, describe_hang
from shardio.vcpu import Vcpu

START_S = 30.0
"""How long a shard may take to make its devices before that counts as hanging."""
STOPPED_START_S = 1.0
"""How long it may be stopped meanwhile."""
MOST_A_LOOK_S = 0.1
"""A longer time between two looks was not all this process's."""
ANNOUNCE_S = 1.0
"""After how long a shard without a deadline is told of."""

log = logging.getLogger("shardio.supervisor")


@dataclass
class _Clock:
    """The time, in seconds, in which a shard's process `pid` could have answered; `stopped` without a break.
    """

    pid: int
    ran: float = 0.0
    stopped: float = 0.0
    cpu_s: float = math.inf


@dataclass
class _Wait:
    """What a vCPU waits for: `access` of the process `pid` of a shard. Since when, when that shard last
    moved, and whether somebody was told; times are those of the shard's clock.
    """

    access: tuple[int, ...]
    pid: int
    progress: int
    began: float
    moved: float
    told: bool = False


@dataclass
class _Judged:
    """The process `pid` of a shard that hangs: for which access (`access_of`) of `vcpu`, after how many
    seconds; `asked` for its stacks.
    """

    pid: int
    vcpu: int
    access: tuple[str, str]
    waited: float
    asked: Interpreter | None


class HangWatch:
    """Looks at what every vCPU waits for. `deadline` in seconds of running, infinity for none."""

    def __init__(
        self,
        context: Context,
        deadline: float,
        observe: Callable[[int], ProcessState | None] = process_state,
    ) -> None:
        self._context = context
        self._deadline = deadline
        self._observe = observe
        self._looked_at: float | None = None
        self._clocks: dict[int, _Clock] = {}
        self._waits: dict[int, _Wait] = {}
        self._judged: dict[int, _Judged] = {}
        self._request, self._taken = ffi.new("struct sio_request *"), ffi.new("int *")

    def look(self, now: float) -> None:
        """Kill what hangs; `now` in seconds of the monotonic clock."""
        step = 0.0 if self._looked_at is None else min(now - self._looked_at, MOST_A_LOOK_S)
        self._looked_at = now
        self._kill_judged()
        waited = {wait.access[0] for wait in self._waits.values()}
        for shard in self._context.shards:
            if shard.alive and (shard.index in waited or not shard.restored):
                self._advance(shard, step)
            else:
                self._clocks.pop(shard.index, None)
        for shard in self._context.shards:
            if shard.alive and not shard.restored:
                self._look_at_start(shard)
        for vcpu in self._context.vcpus:
            self._look_at(vcpu, now)

    def _advance(self, shard: ShardProcess, step: float) -> None:
        clock = self._clocks.get(shard.index)
        if clock is None or clock.pid != shard.pid:
            clock = self._clocks[shard.index] = _Clock(shard.pid)
            step = 0.0
        if self._context.prompts.holds(shard):
            step = 0.0  # its user thinks
        seen = self._observe(shard.pid)
        clock.stopped = clock.stopped + step if seen is not None and seen.stopped else 0.0
        if seen is None or not seen.runnable:
            clock.ran += step
        else:
            clock.ran += min(step, max(0.0, seen.cpu_s - clock.cpu_s))
        if seen is not None and not seen.stopped:
            clock.cpu_s = seen.cpu_s

    def _look_at_start(self, shard: ShardProcess) -> None:
        clock = self._clocks[shard.index]
        if clock.stopped > min(STOPPED_START_S, self._deadline) and math.isfinite(self._deadline):
            log.error("shard %s is stopped and does not make its devices; killing it", shard.name)
            shard.kill()

    def _look_at(self, vcpu: Vcpu, now: float) -> None:
        access = None if vcpu.ended else self._unanswered(vcpu)
        if access is None:
            self._waits.pop(vcpu.index, None)
            return
        shard = self._context.shards[access[0]]
        progress = self._context.fabric.progress(shard.index)
        wait = self._waits.get(vcpu.index)
        starting = not shard.restored and now - shard.spawned_at < START_S
        clock = self._clocks.get(shard.index)
        ran = clock.ran if clock is not None else 0.0
        if wait is None or clock is None or (wait.access, wait.pid) != (access, shard.pid) or starting:
            self._waits[vcpu.index] = _Wait(access, shard.pid, progress, ran, ran)
            return
        if wait.progress != progress:
            wait.progress, wait.moved = progress, ran
        self._judge(shard, vcpu, wait, ran)

    def _judge(self, shard: ShardProcess, vcpu: Vcpu, wait: _Wait, ran: float) -> None:
        if not shard.alive or shard.index in self._judged:
            return
        waited, longest = ran - wait.began, self._deadline * (len(self._context.vcpus) + 1)
        if ran - wait.moved > self._deadline or waited > longest:
            del self._waits[vcpu.index]
            access = access_of(self._context, vcpu.index, shard.index)
            self._judged[shard.index] = _Judged(shard.pid, vcpu.index, access, waited, ask(shard))
        elif not math.isfinite(self._deadline) and waited > ANNOUNCE_S and not wait.told:
            wait.told = True
            stopped = self._clocks[shard.index].stopped > 0
            log.warning(
                "shard %s (pid %d) has not answered vCPU %d for %.1f s%s; it has no deadline and lives",
                shard.name, shard.pid, vcpu.index, waited, ", it is stopped" if stopped else "",
            )  # fmt: skip
            self._context.on_event(events.ShardWaitedFor(shard.name, shard.pid, vcpu.index, stopped))

    def _kill_judged(self) -> None:
        """Kill what was found to hang at the last look: it has had the time since then to write its stacks.
        """
        judged, self._judged = self._judged, {}
        for index, each in judged.items():
            shard = self._context.shards[index]
            if shard.alive and shard.pid == each.pid:
                found = describe_hang(each.access, each.vcpu, shard, each.asked)
                log.error("killing a shard after %.1f s: %s", each.waited, found)
                self._context.on_event(events.ShardHung(**msgspec.structs.asdict(found)))
                shard.kill()

    def _unanswered(self, vcpu: Vcpu) -> tuple[int, ...] | None:
        """What a vCPU waits for, its shard's number first; None where the shard owes it nothing."""
        pending = int(lib.sio_client_pending(vcpu.client))
        kind, target, fabric = pending >> 62, pending >> 56 & 63, self._context.fabric
        if target >= len(self._context.shards):
            return None
        if kind == lib.SIO_PENDING_SYNC:
            found = lib.sio_recover_request(fabric.view, target, vcpu.index, self._request, self._taken)
            return (target, kind, int(self._request.state)) if found else None
        if kind == lib.SIO_PENDING_NONE:
            posted = int(lib.sio_client_posted(vcpu.client, target))
            credit = int(lib.sio_credit(fabric.view, target, vcpu.index).credit)
            return (target, kind, posted) if posted - credit >= fabric.posted_slots else None
        return None
