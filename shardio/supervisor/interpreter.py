"""A Python interpreter that waits to be told which shard it is: see `shardio.shard.spare`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence

from shardio.errors import ShardError
from shardio.processes import kill
from shardio.shard import notebook, protocol
from shardio.supervisor.bytecode import READ
from shardio.supervisor.outbox import Outbox
from shardio.supervisor.process_state import process_state
from shardio.supervisor.template import Sibling, Template
from shardio.threads import close_aside

PREPARE_BYTES = 64 * 1024
"""Of factories that one message names; what does not fit is loaded when it is needed."""
_MAIN = """import gc, sys
gc.disable()
{bytecode}sys.path[:] = {path!r}
from shardio.shard.lazy_import import lazy_import
with lazy_import():
    from shardio.shard.{module} import main
main({arguments})"""


def _python(
    module: str, arguments: str, fds: Sequence[int], stdin: int | None, bytecode: int
) -> subprocess.Popen[bytes]:
    """A Python that runs the `main` of a module of `shardio.shard`, with the descriptors `fds`."""
    take_over = READ.format(fd=bytecode) if bytecode >= 0 else ""
    main = _MAIN.format(bytecode=take_over, path=sys.path, module=module, arguments=arguments)
    return subprocess.Popen(
        [sys.executable, "-c", main],
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        pass_fds=[fd for fd in (*fds, bytecode) if fd >= 0],
    )


def start_template(stdin: int | None, bytecode: int = -1) -> Template:
    """A template of interpreters that are given the same. Raises OSError."""
    return Template(lambda arguments, fds: _python("template", arguments, fds, stdin, bytecode))


class Interpreter:
    """A process with its control and interrupt sockets, and its `notebook` (`shardio.shard.notebook`). It
    dies with the thread that made it.
    """

    def __init__(self, stdin: int | None, bytecode: int = -1, template: Template | None = None) -> None:
        """`stdin`: the descriptor that becomes its standard input (None: /dev/null); `bytecode`: what
        `shardio.supervisor.bytecode.missing` has made, -1 for none; `template`: what it is forked from if
        that can.

        Raises `ShardError` when no process can be started.
        """
        self._loaded: set[bytes] = set()
        self._prepared = False
        try:
            self._start(stdin, bytecode, template)
        except OSError as error:
            hint = "raise the limits on processes and open files (ulimit -u, -n)"
            raise ShardError("interpreter", f"cannot be started: {error.strerror}", hint) from None

    def _start(self, stdin: int | None, bytecode: int, template: Template | None) -> None:
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as done:
            self.control, theirs = _pair(undo, done)
            self.interrupts, their_lines = _pair(undo, done)
            self.notebook = notebook.create()
            undo.callback(os.close, self.notebook)
            given = (theirs.fileno(), their_lines.fileno(), self.notebook)
            self._process: Sibling | subprocess.Popen[bytes]
            if template is not None:
                if (forked := template.fork(given)) is None:
                    self._start(stdin, bytecode, None)
                    return
                self._process = forked
            else:
                arguments = f"{given[0]}, {given[1]}, {os.getpid()}, {given[2]}"
                self._process = _python("process", arguments, given, stdin, bytecode)
            undo.callback(self._process.wait)
            undo.callback(os.kill, self._process.pid, signal.SIGKILL)
            self.pidfd = os.pidfd_open(self._process.pid)
            self.control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * protocol.MAX_MESSAGE)
            self.outbox = Outbox(self.control)
            undo.pop_all()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def stopped(self) -> bool:
        """Whether a signal or a tracer has stopped it."""
        state = process_state(self.pid)
        return state is not None and state.stopped

    def prepare(self, fabric_fd: int, factories: Iterable[bytes]) -> None:
        """Have it attach the fabric and load the factories (`Packed.factory`) that it was not told of yet.

        Never waits: what an interpreter that does not listen is not told, it loads when it is needed.
        """
        new: list[bytes] = []
        size = 0
        for factory in factories:
            if factory not in self._loaded and size + len(factory) <= PREPARE_BYTES:
                new.append(factory)
                size += len(factory)
        if self._prepared and not new:
            return
        message = protocol.Prepare(sys.path, new)
        with contextlib.suppress(OSError):
            if self.outbox.send(message, () if self._prepared else (fabric_fd,)):
                self._prepared = True
                self._loaded.update(new)

    def kill(self) -> None:
        """SIGKILL, unless it is dead already (a program that waits for any child may have reaped it)."""
        kill(self.pidfd, self.pid)

    def reap(self) -> int | None:
        """Collect it if it is dead: its return code (negative: a signal), else None."""
        return self._process.poll()

    def close(self) -> None:
        """Close its descriptors; it must be reaped, and nobody may wait for them any more."""
        os.close(self.pidfd)
        os.close(self.notebook)
        self.outbox.close()
        # What it has sent and nobody has read is closed with them.
        close_aside(self.control.detach(), self.interrupts.detach())


def _pair(ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    """Connected sockets, each closed by its stack."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return ours.enter_context(one), theirs.enter_context(other)
