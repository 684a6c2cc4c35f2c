"""What a peer is: a way to reach a device in another process, whose server also answers the floor's pings.

A peer is a class of sessions: one session has a server process, pinned, with a `Register` device in it.
`call` is one access, there and back, made from Python as a user of that peer would. A `Wire` puts and takes
messages.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, ClassVar

from shardio._measure import ffi, lib
from shardio.bench.blocks import Floor, patience_ticks, ping
from shardio.bench.devices import Register
from shardio.bench.errors import BenchError

READ, WRITE, ECHO, STOP = range(4)
LINE_WORDS = 24
READY = -1
"""A word behind the line: the server takes requests."""
JOIN_S, START_S = 5.0, 30.0
context = multiprocessing.get_context("spawn")
Request = tuple[int, int, int, int]
"""Operation, offset, size, value."""


class Session(ABC):
    """A served device. `name` for the command line, `title` for tables, `package` that it needs, if any, and
    what to do without; `line`: a `uint64_t *`, the floor's cache line; `note`: for a reader of the figure.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    package: ClassVar[str] = ""
    hint: ClassVar[str] = "pip install 'shardio[bench]'"
    line: Any = None
    note = ""

    @classmethod
    def missing(cls) -> str:
        """Why it cannot be measured here; empty when it can."""
        return f"{cls.package} is not installed" if cls.package and find_spec(cls.package) is None else ""

    @abstractmethod
    def __init__(self, cpu: int) -> None:
        """Start a server on `cpu`."""

    @abstractmethod
    def call(self, op: int, offset: int, size: int, value: int) -> int:
        """One access (`READ` or `WRITE`): the value read, 0 for a write."""

    @abstractmethod
    def echo(self, n: int, pause: int) -> None:
        """Let the server answer `n` pings of the floor, with a `pause` a poll or without; returns at once."""

    @abstractmethod
    def echoed(self) -> None:
        """Wait until the server is back from `echo`."""

    @abstractmethod
    def close(self) -> None:
        """End the server."""

    def calls(self, n: int, clock: Callable[[], int]) -> list[int]:
        """Nanoseconds of each of `n` reads."""
        call, times = self.call, []
        for _ in range(n):
            begin = clock()
            call(READ, 0, 4, 0)
            times.append(clock() - begin)
        return times

    def floor(self, n: int) -> Floor:
        """Blocks of `n` bare ping-pongs with the server, by each loop; of two the second counts."""
        found = []
        for pause in (1, 0):
            self.echo(2 * n, pause)
            found.append(ping(self.line, pause, n, n))
            self.echoed()
        return Floor(*found)


class Wire(Session):
    """A session with a server process of its own. `put` sends a request, `get` takes a reply.

    `connect` makes both, and gives what the server's process is passed, from which `attach` there makes its
    own: what takes a request, and what puts a reply.
    """

    put: Callable[[Any], object]
    get: Callable[[], int]

    def __init__(self, cpu: int) -> None:
        ends = self.connect()
        self._shared = context.RawArray("Q", LINE_WORDS)
        self.line = line_in(self._shared)
        arguments = (type(self), cpu, self._shared, ends)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        for end in ends:
            if hasattr(end, "fileno"):  # a socket, the server's alone: whose death is the end of ours
                end.close()
        deadline = time.monotonic() + START_S
        while not self._shared[READY]:
            if time.monotonic() > deadline or not self.process.is_alive():
                self.close()
                raise BenchError(f"the server of {self.title} does not start", "see its traceback above")
            time.sleep(0.001)

    @abstractmethod
    def connect(self) -> tuple[Any, ...]: ...

    @classmethod
    @abstractmethod
    def attach(cls, *ends: Any) -> tuple[Callable[[], Request], Callable[[int], object]]: ...

    def release(self) -> None:
        """Close what `connect` made."""

    def call(self, op: int, offset: int, size: int, value: int) -> int:
        """Put a request, take the reply."""
        self.put((op, offset, size, value))
        return self.get()

    def echo(self, n: int, pause: int) -> None:
        """Put the request alone."""
        self.put((ECHO, 0, pause, n))

    def echoed(self) -> None:
        """Take its reply."""
        self.get()

    def close(self) -> None:
        """Tell the server to stop, and collect it."""
        with contextlib.suppress(OSError):  # it has died, and with it the other end
            self.put((STOP, 0, 0, 0))
        self.process.join(JOIN_S)
        self.process.kill()
        self.process.join()
        self.process.close()
        del self.put, self.get
        self.release()


def _serve(kind: type[Wire], cpu: int, shared: Any, ends: tuple[Any, ...]) -> None:
    """The server's main. Of pings, `size` says whether a poll has a `pause`."""
    settle(cpu)
    device, line, wait = Register(), line_in(shared), patience_ticks()
    get, put = kind.attach(*ends)
    shared[READY] = 1
    while (request := get())[0] != STOP:
        op, offset, size, value = request
        if op == ECHO:
            lib.sio_measure_echo(line, value, wait, size)
        elif op == WRITE:
            device.write(offset, size, value)
        put(device.read(offset, size) if op == READ else 0)


def settle(cpu: int) -> None:
    """Run on `cpu`; Ctrl-C is for the near process to act on."""
    os.sched_setaffinity(0, {cpu})
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def line_in(shared: Any) -> Any:
    """A whole cache line in shared words: the same one in both processes, whose mappings begin at a page."""
    start = int(ffi.cast("uintptr_t", ffi.from_buffer(shared)))
    return ffi.cast("uint64_t *", start + -start % 64)
