"""Keeps a warm interpreter for the next shard that starts.

Facts. Starting Python and importing what a shard and its devices need takes some 80 ms
(docs/performance.md, "Recovery"). On a machine with few CPUs, an interpreter that starts takes its CPU from
whatever is urgent.

Consequences. A machine keeps one interpreter that has done all that (`shardio.shard.spare`): it becomes the
successor of whichever shard dies first. The next one is started when the successor serves, not before. One
that dies is replaced, unless it had not become warm: then another would not either. Where many shards start,
one interpreter does all that and the others, the first spare too, are forks of it (`template`).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import Future

from shardio.errors import ShardError, ShardioError
from shardio.shard import protocol
from shardio.supervisor.bytecode import missing
from shardio.supervisor.context import Context
from shardio.supervisor.interpreter import Interpreter, start_template
from shardio.supervisor.template import Template

FEW_SHARDS = 2
"""So many start beside each other as soon as a template would."""

log = logging.getLogger("shardio.supervisor")


class SpareKeeper:
    """The spare of one machine. `stdin`: the descriptor that becomes every interpreter's standard input."""

    def __init__(self, context: Context, stdin: int | None) -> None:
        self.warm = False
        """The spare has loaded what it was told to at its start."""
        self._context = context
        self._stdin = stdin
        self._spare: Interpreter | None = None
        self._factories: tuple[bytes, ...] = ()
        self._ended = False
        self._template: Template | None = None
        self._bytecode: int | None = None
        self._discarded = 0
        self._fresh: Future[str] | None = None

    @property
    def pid(self) -> int:
        """The spare's process id, 0 while there is none."""
        return self._spare.pid if self._spare is not None else 0

    def expect(self, shards: int) -> None:
        """So many shards are to be started: many are forked from one process, until a spare is kept."""
        if shards > FEW_SHARDS and self._template is None and not self._ended:
            with contextlib.suppress(OSError):
                self._template = start_template(self._stdin, self._compiled)

    def keep(self, factories: Sequence[bytes]) -> None:
        """Have a spare, and have it load these (`Packed.factory`). Without one, a shard starts cold."""
        self._factories = tuple(factories)
        if self._spare is None and not self._ended:
            with contextlib.suppress(ShardioError):
                self._start()
            self._end_template()
        if self._spare is not None:
            self._spare.prepare(self._context.fabric.fd, self._factories)

    def renew(self) -> Future[str]:
        """Have a fresh spare in place of the one that there is, with what the devices' files say now. Done
        once it is warm: "", or what came of the first device that cannot be loaded. Fails with `ShardError`
        where there can be none.
        """
        fresh: Future[str] = Future()
        self._fresh = fresh
        spare = self._spare
        if spare is not None:
            self._forget(spare)
            self._discard(spare)
        self._spare = None
        self.keep(self._factories)
        if self._spare is None:
            self._give_up_fresh()
        return fresh

    def take(self) -> Interpreter:
        """The spare, or a fresh interpreter where there is none; it has been told to prepare. Raises
        `ShardError`.
        """
        spare = self._spare
        if spare is not None:
            self._forget(spare)
            if spare.reap() is not None:
                spare.close()
            elif spare.stopped:
                # A shard that it became would not make its devices.
                log.warning("the spare interpreter is stopped; a fresh one is started in its place")
                self._discard(spare)
            else:
                return spare
        fresh = Interpreter(self._stdin, self._compiled, self._template)
        fresh.prepare(self._context.fabric.fd, ())
        return fresh

    def compile(self) -> None:
        """Have the bytecode at hand that later interpreters would miss. Once; it may take 0.1 s and more."""
        if self._bytecode is None:
            self._bytecode = -1
            with contextlib.suppress(OSError, ShardioError):
                self._bytecode = missing()

    @property
    def _compiled(self) -> int:
        return -1 if self._bytecode is None else self._bytecode

    def close(self) -> None:
        """Let the bytecode go; no interpreter is started any more. Idempotent."""
        self._end_template()
        if self._compiled >= 0:
            os.close(self._compiled)
        self._bytecode = -1

    @property
    def gone(self) -> bool:
        """Whether no interpreter is left of those that are no shard."""
        return self._spare is None and not self._discarded

    def end(self) -> None:
        """Kill the spare, and keep none any more; see `gone`."""
        self._ended = True
        self._end_template()
        if self._spare is not None:
            self._spare.kill()

    def _discard(self, spare: Interpreter) -> None:
        """End a spare that is one no more."""
        spare.kill()
        self._discarded += 1

        def gone() -> None:
            self._context.forget(spare.pidfd)
            spare.reap()
            spare.close()
            self._discarded -= 1

        self._context.watch(spare.pidfd, gone)

    def _start(self) -> None:
        spare = self._spare = Interpreter(self._stdin, self._compiled, self._template)
        self._context.watch(spare.pidfd, lambda: self._on_death(spare))
        self._context.watch(spare.control, lambda: self._on_message(spare))

    def _end_template(self) -> None:
        if self._template is not None:
            self._template.close()
            self._template = None

    def _forget(self, spare: Interpreter) -> None:
        self._spare, self.warm = None, False
        self._context.forget(spare.pidfd)
        self._context.forget(spare.control)

    def _on_message(self, spare: Interpreter) -> None:
        try:
            message = protocol.receive_in_vmm(spare.control, "spare", lambda _serial: False)
        except BlockingIOError:
            return
        except ShardioError as error:
            log.error("%s", error)
            self._context.forget(spare.control)
            spare.kill()
            return
        if message is None:
            self._context.forget(spare.control)  # its pidfd tells of its death
            spare.kill()
        elif isinstance(message, protocol.Ready):
            self.warm = True
            if self._fresh is not None:
                self._fresh.set_result(message.failed)
                self._fresh = None

    def _on_death(self, spare: Interpreter) -> None:
        again = self.warm
        self._forget(spare)
        code = spare.reap()
        spare.close()
        if self._ended:
            return
        log.warning("the spare interpreter died (%s)", code)
        self._give_up_fresh()
        if again:
            self.keep(self._factories)

    def _give_up_fresh(self) -> None:
        if self._fresh is not None:
            error = ShardError("spare", "a fresh interpreter does not come up", "see its log")
            self._fresh.set_exception(error)
            self._fresh = None
