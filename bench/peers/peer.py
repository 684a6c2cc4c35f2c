"""What a peer is: a way to reach a device in another process, whose server also answers the floor's pings.

A peer opens a session: a server process, pinned, with a `Register` device in it. `Session.call` is one
access, there and back, made from Python as a user of that peer would. `Wire` is a session that sends and
receives separately; the server's side of it is `answer`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.util import find_spec
from multiprocessing.context import SpawnProcess
from typing import Any

from shardio._measure import ffi, lib
from shardio.bench.blocks import new_block
from shardio.bench.devices import Register
from shardio.bench.errors import BenchError

READ, WRITE, ECHO, STOP = range(4)
LINE_WORDS = 16
PATIENCE_TICKS = 20_000_000_000
JOIN_S = 5.0
context = multiprocessing.get_context("spawn")


class Session(ABC):
    """A served device."""

    @abstractmethod
    def call(self, op: int, offset: int, size: int, value: int) -> int:
        """One access (`READ` or `WRITE`): the value read, 0 for a write."""

    @abstractmethod
    def echo(self, n: int) -> None:
        """Let the server answer `n` pings of the floor; returns at once."""

    @abstractmethod
    def echoed(self) -> None:
        """Wait until the server is back from `echo`."""

    @abstractmethod
    def close(self) -> None:
        """End the server."""

    line: Any = None
    """`uint64_t *` of the floor's cache line."""
    note = ""
    """What a reader of the figure should know."""

    def calls(self, n: int, clock: Callable[[], int]) -> list[int]:
        """Nanoseconds of each of `n` reads."""
        call, times = self.call, []
        for _ in range(n):
            begin = clock()
            call(READ, 0, 4, 0)
            times.append(clock() - begin)
        return times

    def floor(self, n: int) -> float:
        """Ticks of a bare ping-pong with the server, on average over `n`."""
        self.echo(2 * n)
        for _ in range(2):
            block = new_block(n)
            ticks = lib.sio_measure_ping(self.line, block, PATIENCE_TICKS, 1)
            if block.done != n:
                raise BenchError(
                    "the peer's server answers no pings", "run on a machine that is not overloaded"
                )
        self.echoed()
        return float(ticks) / n


class Peer(ABC):
    """A way to serve a device: `name` for the command line, `title` for tables, `package` that it needs,
    if any.
    """

    name: str
    title: str
    package: str = ""
    hint: str = "pip install 'shardio[bench]'"
    """What to do where it is missing."""

    def missing(self) -> str:
        """Why it cannot be measured here; empty when it can."""
        if self.package and find_spec(self.package) is None:
            return f"{self.package} is not installed"
        return ""

    @abstractmethod
    def open(self, cpu: int) -> Session:
        """Start a server on `cpu`."""


class Wire(Session):
    """A session over something that messages are put into and taken from, with a server process of its
    own.
    """

    def __init__(self, serve: Callable[..., None], cpu: int, *ends: Any) -> None:
        """`serve(cpu, line, *ends)` is the server's main."""
        shared = context.RawArray("Q", LINE_WORDS)
        self._shared = shared
        self.line = line_in(shared)
        self.process: SpawnProcess = context.Process(target=serve, args=(cpu, shared, *ends), daemon=True)
        self.process.start()

    @abstractmethod
    def send(self, op: int, offset: int, size: int, value: int) -> None:
        """Put a request."""

    @abstractmethod
    def receive(self) -> int:
        """Take the reply."""

    def call(self, op: int, offset: int, size: int, value: int) -> int:
        """Put a request, take the reply."""
        self.send(op, offset, size, value)
        return self.receive()

    def echo(self, n: int) -> None:
        """Put the request alone."""
        self.send(ECHO, 0, 0, n)

    def echoed(self) -> None:
        """Take its reply."""
        self.receive()

    def close(self) -> None:
        """Tell the server to stop, and collect it."""
        with contextlib.suppress(OSError):  # it has died, and with it the other end
            self.send(STOP, 0, 0, 0)
        self.process.join(JOIN_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


class Server:
    """The server's side: one device, and the floor's line."""

    def __init__(self, cpu: int, shared: Any) -> None:
        settle(cpu)
        self.device = Register()
        self._shared = shared
        self._line = line_in(shared)

    def answer(self, op: int, offset: int, size: int, value: int) -> int:
        """Do what a request asks for."""
        if op == READ:
            return self.device.read(offset, size)
        if op == WRITE:
            self.device.write(offset, size, value)
        elif op == ECHO:
            lib.sio_measure_echo(self._line, value, PATIENCE_TICKS, 1)
        return 0


def settle(cpu: int) -> None:
    """Run on `cpu`; Ctrl-C is for the near process to act on."""
    os.sched_setaffinity(0, {cpu})
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def line_in(shared: Any) -> Any:
    """A whole cache line inside shared words: the same one in both processes, whose mappings begin at a
    page.
    """
    start = int(ffi.cast("uintptr_t", ffi.from_buffer(shared)))
    return ffi.cast("uint64_t *", start + -start % 64)
