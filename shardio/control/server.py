"""`ControlServer`: answers `shardio ls`, `top`, `pause`, `reload`, `stop` and so on in the machine's process.

Whoever runs as the same user, or as root, may connect. A machine that starts or stops has its turn taken for
as long as that lasts: the server's thread waits for a turn a bounded time, and a client hears that it is
busy.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Protocol

from shardio.control import messages
from shardio.control.messages import HEADER, LONGEST_REQUEST, Done, Examined, Refused, Reply, Screen, Status
from shardio.dispatcher.life import Life, State
from shardio.dispatcher.statistics import MachineStatistics
from shardio.errors import MachineError, ShardioError
from shardio.exchange import MOST_CLIENTS, PATIENCE_S, Exchange
from shardio.vcpu import VcpuState
from shardio.vcpu.report import VcpuReport

LONGEST_SCREEN = 1 << 16
"""Characters: a shard gives the text, and is not trusted."""
TURN_S = 1.0
"""How long a client's request waits for a turn of the machine."""

log = logging.getLogger("shardio.control")


class Controlled(Protocol):
    """The machine: `shardio.Machine`."""

    def pause(self, timeout: float = ...) -> None:
        """Park its vCPUs."""

    def resume(self, timeout: float = ...) -> None:
        """Let them run."""

    def reload(self, *devices: str) -> None:
        """Have the shards of these devices run what their files say now."""

    def stop(self) -> None:
        """End it."""

    def statistics(self) -> MachineStatistics:
        """What it has done so far."""

    def screen(self, timeout: float = ...) -> str:
        """The text on its screen."""

    def examine(self, index: int) -> VcpuReport:
        """Where one of its vCPUs is."""


class ControlServer(Exchange):
    """The control socket of a machine, called `name`, from now until `close`.

    `stop`: what a client's stop does, and must not wait for this thread (None: the machine's `stop`). Raises
    `MachineError` for a name that cannot be, or that another machine of this process has.
    """

    def __init__(
        self, machine: Controlled, life: Life, name: str, stop: Callable[[], None] | None = None
    ) -> None:
        self.name = name
        self._machine, self._life = machine, life
        self._stop = stop
        super().__init__(_listening(name), "shardio-control", HEADER.size + LONGEST_REQUEST)

    def admits(self, connection: socket.socket) -> bool:
        """See `Exchange.admits`: this user, and root."""
        return messages.trusted(messages.peer(connection)[1])

    def request(self, received: bytearray) -> bytes | None:
        """See `Exchange.request`: what stands behind its length."""
        if len(received) < HEADER.size:
            return None
        (length,) = HEADER.unpack_from(received)
        if length > LONGEST_REQUEST:
            raise MachineError(f"a request of {length} bytes", f"send {LONGEST_REQUEST} at most")
        body = bytes(received[HEADER.size : HEADER.size + length])
        return body if len(body) == length else None

    def reply(self, request: bytes) -> bytes:
        """See `Exchange.reply`."""
        return messages.packed(self._reply(request))

    def refusal(self, error: ShardioError) -> bytes:
        """See `Exchange.refusal`."""
        return messages.packed(Refused(error.message, error.hint))

    def _reply(self, body: bytes) -> Reply:
        request = messages.unpacked_request(body)
        command = request.command
        try:
            match command:
                case "status":
                    return self._status()
                case "screen":
                    return Screen(self._machine.screen(TURN_S)[:LONGEST_SCREEN])
                case "examine":
                    with self._life.turn_within(TURN_S):
                        return Examined(self._machine.examine(request.vcpu))
                case "pause":
                    with self._life.turn_within(TURN_S):
                        self._machine.pause(PATIENCE_S)
                case "resume":
                    with self._life.turn_within(TURN_S):
                        self._machine.resume(PATIENCE_S)
                case "reload":
                    with self._life.turn_within(TURN_S):
                        self._machine.reload(*request.devices)
                case "stop" if self._stop is not None:
                    self._stop()
                case "stop":
                    with self._life.turn_within(TURN_S):
                        self._machine.stop()
        except ShardioError:
            raise
        except Exception as error:
            log.exception("the machine could not be asked to %s", command)
            what = f"it failed: {type(error).__name__}: {error}"
            raise MachineError(what, "see the machine's log") from None
        return Done()

    def _status(self) -> Status:
        state = self._life.state
        statistics = MachineStatistics((), (), ())
        if state in (State.RUNNING, State.STOPPED):
            with self._life.turn_within(TURN_S):
                statistics, state = self._machine.statistics(), self._life.state
        paused = any(vcpu.state is VcpuState.PAUSED for vcpu in statistics.vcpus)
        return Status(
            self.name,
            os.getpid(),
            "paused" if state is State.RUNNING and paused else state.name.lower(),
            time.monotonic_ns(),
            self._life.exit,
            statistics,
        )


def _listening(name: str) -> socket.socket:
    address = messages.address(os.getpid(), name)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listener.bind(address)
        listener.listen(MOST_CLIENTS)
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise MachineError(
            f"this process has a machine called {name} already", "give this one another name"
        ) from None
    return listener
