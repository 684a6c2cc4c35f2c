"""Starts shards, hears them, and settles what a dead one left before its successor goes on.

Facts. Only the supervisor's thread writes the address map. An owner that is dead and reaped writes nothing
any more, so the core may write its words in its place (native/recovery.h). A request that the owner had not
taken waits for the successor; of one that it had taken, nobody knows how far it came.

Consequences. A request that was taken is replayed or failed, by the policy of its range: `replay` (the
default for reads) lets the successor serve it again, twice at most; `fail` (the default for writes) gives
all-ones or drops the write, so that it happens zero or one time, never later. A range whose request has
killed two owners is quarantined before the guest goes on, and so is all of a shard that has died too often.
The order is that of what the guest waits for: reap, settle, start the successor (which serves as soon as it
holds its devices), and only then close what the dead one had, log, and have the next spare started.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from enum import StrEnum
from typing import Any

from shardio._core import ffi, lib
from shardio.errors import ShardError, ShardioError
from shardio.interrupt.backend import InterruptBackend
from shardio.interrupt.doorbell import DoorbellBackend
from shardio.interrupt.server import InterruptServer
from shardio.shard import protocol
from shardio.supervisor import events
from shardio.supervisor.context import Context
from shardio.supervisor.gil_switch_interval import GilSwitchInterval
from shardio.supervisor.interpreter import Interpreter
from shardio.supervisor.shard_process import ShardProcess, cause
from shardio.supervisor.spare import SpareKeeper

ATTEMPTS = 2

log = logging.getLogger("shardio.supervisor")


class Policy(StrEnum):
    """What to do with a request that a dead shard had taken."""

    REPLAY = "replay"
    FAIL = "fail"


class Failover:
    """The shards of one dispatcher. `policy(range index, write)`; `backend`, `doorbells`: None where there is
    none.
    """

    def __init__(
        self,
        context: Context,
        spares: SpareKeeper,
        policy: Callable[[int, bool], Policy],
        switch_interval: GilSwitchInterval,
        backend: InterruptBackend | None,
        doorbells: DoorbellBackend | None,
    ) -> None:
        self._context = context
        self._spares = spares
        self._policy = policy
        self._switch_interval = switch_interval
        self._backend, self._doorbells = backend, doorbells
        self._keeps_spare = False
        self._attempts: dict[tuple[int, int], tuple[int, int]] = {}
        """By shard and vCPU: the request that owners were last seen to die with, and how many have."""

    # ---- starting ----

    def start(self, shard: ShardProcess) -> None:
        """Start and watch a shard, and give it the devices on its record; it serves when it holds them.

        Raises `ShardError`.
        """
        interpreter = self._spares.take()
        shard.start(interpreter, self._interrupt_server(shard))
        shard.restored = not shard.records
        if shard.records:
            shard.add(list(shard.records.values()), serve=True).add_done_callback(
                lambda done: self._on_restored(shard, interpreter, done)
            )
        else:
            shard.serve()
        watch = self._context.watch
        watch(interpreter.pidfd, lambda: self._on_death(shard))
        watch(interpreter.control, lambda: self._on_message(shard, interpreter))
        watch(interpreter.interrupts, lambda: self._on_interrupt_request(shard, interpreter))
        self._spares.compile()  # while the first of all shards starts: no guest waits yet

    def keep_spare(self) -> None:
        """From now on, have an interpreter warm for the next shard that starts: it has loaded the devices of
        all.
        """
        self._keeps_spare = True
        self.renew_spare()

    def renew_spare(self) -> None:
        """Have the spare, if one is kept, load what devices have come. A new one waits until all shards hold
        theirs.
        """
        shards = self._context.shards
        if self._keeps_spare and all(shard.restored for shard in shards if shard.alive):
            records = (record for shard in shards for record in shard.records.values())
            self._spares.keep(list(dict.fromkeys(record.spec.device.factory for record in records)))

    def _interrupt_server(self, shard: ShardProcess) -> InterruptServer | None:
        if self._backend is None and self._doorbells is None:
            return None

        def owns(address: int, pio: bool) -> bool:
            route = self._context.routes.find(address, pio=pio)
            return route is not None and shard.index in route.shards

        def grant(lines: int) -> None:
            for vcpu in self._context.vcpus:
                vcpu.grant_lines(shard.index, lines)

        return InterruptServer(
            self._backend,
            doorbells=self._doorbells,
            owns=owns,
            grant=grant,
            modes=lambda: shard.declared("message_modes"),
        )

    # ---- hearing ----

    def _on_message(self, shard: ShardProcess, interpreter: Interpreter) -> None:
        try:
            message = protocol.receive_in_vmm(interpreter.control, shard.name, shard.waits_for)
        except BlockingIOError:
            return
        except ShardioError as error:
            log.error("%s", error)
            self._context.forget(interpreter.control)  # nothing that it says counts any more
            shard.kill()
            return
        shard.flush()
        match message:
            case None:
                self._context.forget(interpreter.control)  # its pidfd tells of its death
                if not (shard.quitting or shard.making_way):
                    shard.kill()  # it is deaf, if it lives
            case protocol.Done():
                shard.answered(message)
            case protocol.ExitRequest(status):
                self._context.on_event(events.ExitRequested(status & 0xFF))
            case protocol.ResetRequest():
                self._context.on_event(events.ResetRequested())
            case protocol.HandlerFailed(device, text):
                self._context.on_event(events.HandlerFailed(shard.name, device, text))
            case protocol.AskTerminal(where):
                log.info("shard %s is at breakpoint() in %s", shard.name, where)
                self._context.prompts.asked(shard, where)
            case protocol.ReturnTerminal():
                self._context.prompts.returned(shard)
            case protocol.Ready():
                pass  # it was warm just before it became a shard

    def _on_interrupt_request(self, shard: ShardProcess, interpreter: Interpreter) -> None:
        sock, server = interpreter.interrupts, shard.interrupt_server
        if server is None:
            # Without interrupts nobody can answer: the shard's request fails at once.
            self._context.forget(sock)
            sock.shutdown(socket.SHUT_RDWR)
            return
        try:
            if server.serve(sock):
                return
        except ShardioError as error:
            log.error("shard %s: %s; killing it", shard.name, error)
            shard.kill()
        self._context.forget(sock)

    # ---- mending ----

    def _on_death(self, shard: ShardProcess) -> None:
        interpreter = shard.interpreter
        if interpreter is None or (code := shard.reap()) is None:
            return
        shard.died_at, making_way = time.monotonic(), shard.making_way
        self._context.prompts.returned(shard)
        self._switch_interval.begin(shard)
        try:
            if not shard.quitting and self._settle(shard):
                self.start(shard)
        except (ShardioError, OSError) as error:
            shard.end_reload(error)
            self._context.on_event(events.Failed(str(error)))
        finally:
            if not shard.alive or shard.restored:
                self._switch_interval.end(shard)
            for watched in (interpreter.pidfd, interpreter.control, interpreter.interrupts):
                self._context.forget(watched)
            shard.release_process()
        if not shard.quitting:
            if making_way:
                log.info("shard %s makes way for fresh code", shard.name)
            else:
                log.warning("shard %s died (%s)", shard.name, code)
                self._context.on_event(events.ShardDied(shard.name, interpreter.pid, cause(code)))
                shard.end_reload(ShardError(shard.name, f"died ({cause(code)})", "see its log"))
            if shard.alive and shard.restored:
                self._recovered(shard)
            self.renew_spare()

    def _on_restored(self, shard: ShardProcess, interpreter: Interpreter, done: Future[Any]) -> None:
        if shard.interpreter is not interpreter:
            return  # it died before it held them, and another is at it
        shard.restored = True
        self._switch_interval.end(shard)
        error = done.exception()
        shard.end_reload(error)
        if error is not None and not shard.quitting:
            log.error("shard %s cannot hold its devices again: %s", shard.name, str(error))
            shard.kill()  # dying again and again ends in quarantine
            return
        self._recovered(shard)
        self.renew_spare()

    def _recovered(self, shard: ShardProcess) -> None:
        if shard.died_at:
            seconds = time.monotonic() - shard.died_at
            self._context.on_event(events.ShardRecovered(shard.name, shard.pid, seconds))

    def _settle(self, shard: ShardProcess) -> bool:
        """Decide about every request of a dead and reaped shard. False: it died too often and is given up."""
        fabric, context = self._context.fabric, self._context
        refused: list[tuple[int, int]] = []
        deadly: set[int] = set()
        request, taken = ffi.new("struct sio_request *"), ffi.new("int *")
        for vcpu in range(fabric.vcpus):
            found = lib.sio_recover_request(fabric.view, shard.index, vcpu, request, taken)
            if not found or not taken[0]:
                continue
            state, tries = self._attempts.get((shard.index, vcpu), (0, 0))
            tries = tries + 1 if state == request.state else 1
            self._attempts[shard.index, vcpu] = (request.state, tries)
            if tries >= ATTEMPTS:
                deadly.add(request.range)
            write = bool(request.op & lib.SIO_WRITE)
            if tries >= ATTEMPTS or self._policy(request.range, write) is Policy.FAIL:
                refused.append((vcpu, request.state))
        if deadly:
            # Before the guest goes on: its next access there must not reach the successor.
            self._quarantine(shard, deadly)
        for vcpu, state in refused:
            lib.sio_recover_refuse(fabric.view, shard.index, vcpu, state)
        lib.sio_recover_settled(fabric.view, shard.index)
        if shard.dies_too_often:
            self._give_up(shard)
            return False
        for vcpu in range(fabric.vcpus):
            lib.sio_recover_taken(fabric.view, shard.index, vcpu, context.posted(vcpu, shard.index))
        return True

    def refuse(self, shard: ShardProcess) -> None:
        """Refuse what has been asked of a shard that was given up, and discard what was posted to it."""
        fabric = self._context.fabric
        request, taken = ffi.new("struct sio_request *"), ffi.new("int *")
        for vcpu in range(fabric.vcpus):
            posted = self._context.posted(vcpu, shard.index)
            lib.sio_recover_discard_posted(fabric.view, shard.index, vcpu, posted)
            if lib.sio_recover_request(fabric.view, shard.index, vcpu, request, taken):
                lib.sio_recover_refuse(fabric.view, shard.index, vcpu, request.state)

    def _quarantine(self, shard: ShardProcess, ranges: set[int]) -> None:
        devices = self._devices(ranges)
        self._context.routes.quarantine(ranges)
        self._context.routes.publish()
        log.error("shard %s: a request killed two owners; %s is quarantined", shard.name, ", ".join(devices))
        self._context.on_event(events.RangesQuarantined(shard.name, devices))

    def _give_up(self, shard: ShardProcess) -> None:
        shard.quarantined = True
        devices = self._devices(r.index for _, r in self._context.routes if r.shards == (shard.index,))
        self._context.routes.drop_shard(shard.index)
        self._context.routes.publish()
        self.refuse(shard)
        log.error("shard %s died %d times; its ranges are quarantined", shard.name, len(shard.deaths))
        self._context.on_event(events.ShardQuarantined(shard.name, len(shard.deaths), devices))

    def _devices(self, ranges: Iterable[int]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._context.routes.device(index) for index in ranges))
