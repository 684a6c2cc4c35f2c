"""Starts shards, hears them, and starts a successor when one dies.

A death is settled in the order of what the guest waits for: reap, settle the requests, start the successor
(which serves as soon as it holds its devices), and only then close what the dead one had, log, and have the
next spare started.
"""

from __future__ import annotations

import logging
import socket
from concurrent.futures import Future
from typing import Any

from shardio.errors import ShardioError
from shardio.interrupt.backend import InterruptBackend
from shardio.interrupt.doorbell import DoorbellBackend
from shardio.interrupt.server import InterruptServer
from shardio.shard import protocol
from shardio.supervisor.context import Context
from shardio.supervisor.haste import Haste
from shardio.supervisor.interpreter import Interpreter
from shardio.supervisor.shard_process import ShardProcess
from shardio.supervisor.spare import SpareKeeper
from shardio.supervisor.succession import Succession

log = logging.getLogger("shardio.supervisor")


class ShardKeeper:
    """The shards of one machine. `backend`, `doorbells`: None where the machine has none."""

    def __init__(
        self,
        context: Context,
        spares: SpareKeeper,
        succession: Succession,
        haste: Haste,
        backend: InterruptBackend | None,
        doorbells: DoorbellBackend | None,
    ) -> None:
        self._context = context
        self._spares = spares
        self._succession = succession
        self._haste = haste
        self._backend, self._doorbells = backend, doorbells
        self._keeps_spare = False

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
            for worker in self._context.workers:
                worker.grant_lines(shard.index, lines)

        return InterruptServer(self._backend, doorbells=self._doorbells, owns=owns, grant=grant)

    def _on_message(self, shard: ShardProcess, interpreter: Interpreter) -> None:
        try:
            message = protocol.receive_in_vmm(interpreter.control, shard.name)
        except ShardioError as error:
            log.error("%s", error)
            shard.kill()
            return
        match message:
            case None:
                self._context.forget(interpreter.control)  # its pidfd tells of its death
            case protocol.Done():
                shard.answered(message)
            case protocol.ExitRequest(status):
                self._context.on_event("exit", status & 0xFF)
            case protocol.ResetRequest():
                self._context.on_event("reset", None)
            case protocol.HandlerFailed(device, text):
                log.debug("device %s: %s", device, text)
            case protocol.Ready():
                pass  # it was warm just before it became a shard

    def _on_interrupt_request(self, shard: ShardProcess, interpreter: Interpreter) -> None:
        sock, server = interpreter.interrupts, shard.interrupt_server
        if server is None:
            # Without an in-kernel irqchip nobody can answer: the shard's request fails at once.
            self._context.forget(sock)
            sock.shutdown(socket.SHUT_RDWR)
        elif not server.serve(sock):
            self._context.forget(sock)

    def _on_death(self, shard: ShardProcess) -> None:
        interpreter = shard.interpreter
        if interpreter is None or (code := shard.reap()) is None:
            return
        self._haste.begin(shard)
        try:
            if not shard.quitting and self._succession.settle(shard):
                self.start(shard)
        except (ShardioError, OSError) as error:
            self._context.on_event("failure", error)
        finally:
            if not shard.alive or shard.restored:
                self._haste.end(shard)
            for watched in (interpreter.pidfd, interpreter.control, interpreter.interrupts):
                self._context.forget(watched)
            shard.bury()
        if not shard.quitting:
            log.warning("shard %s died (%s)", shard.name, code)
            self.renew_spare()

    def _on_restored(self, shard: ShardProcess, interpreter: Interpreter, done: Future[Any]) -> None:
        if shard.interpreter is not interpreter:
            return  # it died before it held them, and another is at it
        shard.restored = True
        self._haste.end(shard)
        if (error := done.exception()) is not None and not shard.quitting:
            log.error("shard %s cannot hold its devices again: %s", shard.name, error)
            shard.kill()  # dying again and again ends in quarantine
            return
        self.renew_spare()
