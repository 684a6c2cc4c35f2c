"""The near process of a pair: starts the far one, and times blocks of the floor and blocks of work
against it.

The near process stands for the vCPU workers (the same `struct sio_client`, driven from C), the far one
is a shard. Both are pinned while the pair lives.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing import Pipe
from typing import Any, NamedTuple

from shardio._measure import ffi, lib
from shardio.bench.blocks import PATIENCE, SAMPLE_EVERY, Block, Floor, new_block, on_cpu, ping, timed
from shardio.bench.errors import BenchError
from shardio.closing import Closing
from shardio.fabric import Fabric, Port
from shardio.range import MmioRange, PioRange
from shardio.routing import AddressMap

ANSWER_TIMEOUT_S = 30.0
WARM_UP, POSTED_WARM_UP = 200, 4096
"""Operations before a block that are not timed: after them both processes are in the loop that is measured,
and the ring of posted writes is full.
"""
POSTED_SAMPLE_EVERY = 512
"""Posted writes take less than reading the clock does."""


class Handlers(NamedTuple):
    """`number` ranges of `size` bytes from `base` on, `stride` apart, with indices from `first` on, each
    answered in `shard` by a `device` of its own (a name of `devices.make`).
    """

    first: int
    space: int
    base: int
    size: int
    device: str
    number: int = 1
    stride: int = 0
    posted: bool = False
    shard: int = 0

    @property
    def ranges(self) -> list[MmioRange | PioRange]:
        """Each of them."""
        kind = MmioRange if self.space else PioRange
        return [kind(self.base + i * self.stride, self.size) for i in range(self.number)]


class Service(NamedTuple):
    """One shard of one fabric, served by the far process: descriptors, and who answers."""

    fabric: int
    shard: int
    doorbell: int
    handlers: list[Handlers]


class Setting:
    """A fabric of the benchmark: its counts, and what answers on it."""

    def __init__(self, handlers: Sequence[Handlers], *, vcpus: int = 1, shards: int = 1) -> None:
        self.handlers = tuple(handlers)
        self.fabric = Fabric.create(vcpus=vcpus, shards=shards, ranges=sum(h.number for h in handlers))
        self.doorbells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(shards)]
        routes = AddressMap(self.fabric)
        for group in self.handlers:
            for index, span in enumerate(group.ranges, group.first):
                route = routes.add(span, (group.shard,), posted=group.posted)
                assert route.index == index, "indices are given out in order"
        routes.publish()

    def client(self, vcpu: int = 0) -> Port:
        """A client of a vCPU."""
        return Port(self.fabric, vcpu, dict(enumerate(self.doorbells)))

    def service(self, shard: int = 0) -> Service:
        """What the far process is told of one shard."""
        mine = [group for group in self.handlers if group.shard == shard]
        return Service(self.fabric.fd, shard, self.doorbells[shard], mine)

    def close(self) -> None:
        """Give the fabric back."""
        while self.doorbells:
            os.close(self.doorbells.pop())
        self.fabric.close()


class FarProcess:
    """A far process, the pipe to it, and the floor's `line`. `cpu`: None anywhere."""

    def __init__(self, services: Sequence[Service], cpu: int | None) -> None:
        self.pipe, theirs = Pipe()
        line_fd = os.memfd_create("shardio-bench", os.MFD_CLOEXEC)
        try:
            os.ftruncate(line_fd, mmap.PAGESIZE)
            self._page = mmap.mmap(line_fd, mmap.PAGESIZE)
            self.line: Any = ffi.cast("uint64_t *", ffi.from_buffer(self._page))
            fds = [fd for each in services for fd in (each.fabric, each.doorbell)]
            fds += [theirs.fileno(), line_fd]
            # From the folder that shardio was imported from, wherever the caller is.
            code = f"import sys; sys.path[:] = {sys.path!r}; from shardio.bench.far import main; "
            command = [sys.executable, "-c", f"{code}main({theirs.fileno()}, {os.getpid()})"]
            self.process = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL)
            theirs.close()
            self.ask(line_fd, cpu, list(services))
        finally:
            theirs.close()
            os.close(line_fd)

    def send(self, *request: Any) -> None:
        """Ask for something that is not answered, as the methods of `far.Far` say."""
        self.pipe.send(request)

    def ask(self, *request: Any) -> int:
        """Ask, and wait for the answer. Raises `BenchError` when the process ended or does not answer."""
        try:
            self.send(*request)
            if self.pipe.poll(ANSWER_TIMEOUT_S):
                return int(self.pipe.recv())
        except (EOFError, OSError):
            raise BenchError("the far process of the benchmark ended", "see its traceback above") from None
        what = f"the far process has not answered for {ANSWER_TIMEOUT_S} s"
        raise BenchError(what, "run on a quieter machine")

    def close(self) -> None:
        """End the process and collect it."""
        self.pipe.close()
        self.line = None
        self._page.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Pair(Closing):
    """Two processes over some settings, all of which the one far process answers.

    `cpus`: (near, far). Raises `BenchError` where the far process cannot be started.
    """

    def __init__(self, settings: Sequence[Setting], cpus: tuple[int, int]) -> None:
        self.blocks = self.stolen = 0
        self.again = True
        """Whether disturbed blocks are measured again."""
        with ExitStack() as held:
            for setting in settings:
                held.callback(setting.close)
            held.enter_context(on_cpu(cpus[0]))
            self.far = FarProcess([setting.service() for setting in settings], cpus[1])
            held.callback(self.far.close)
            self._held = held.pop_all()

    @property
    def line(self) -> Any:
        """The floor's, a `uint64_t *`."""
        return self.far.line

    def close(self) -> None:
        """End the far process, close the settings, and run where this process ran before."""
        self._held.close()

    def floor(self, n: int) -> Floor:
        """Blocks of `n` bare ping-pongs: with a `pause` a poll, and without."""
        def block(pause: int) -> Block:
            self.far.send("echo", n + WARM_UP, pause)
            return ping(self.line, pause, WARM_UP, n)

        return Floor(self._undisturbed(lambda: block(1)), self._undisturbed(lambda: block(0)))

    def work(
        self, client: Port, n: int, space: int, addresses: Any, *,
        write: bool = False, size: int = 4, posted: int | None = None, untraced: bool = False,
    ) -> Block:  # fmt: skip
        """A block of `n` accesses at `addresses` (`address_array`), each taken in turn. `posted`: they
        are posted, and this is an address to read after the block, by which all of them have been
        served. `untraced`: reads, by the client that is compiled without a trace.

        Raises `BenchError` when an access was not answered.
        """

        def block() -> Block:
            # Posted writes run at the owner's pace once the ring is full: the block begins there.
            kind = {"write": write, "untraced": untraced}
            every = SAMPLE_EVERY if posted is None else POSTED_SAMPLE_EVERY
            for count in (WARM_UP if posted is None else POSTED_WARM_UP, n):
                block = new_block(count, addresses, space=space, size=size, every=every, **kind)
                ticks = lib.sio_measure_access(client.view, block)
                if block.failed:
                    what = f"{block.failed} of {count} accesses were not answered"
                    raise BenchError(what, "report this as a fault of shardio")
            if posted is not None:
                client.read(space, posted, size)
            return timed(block, ticks)

        return self._undisturbed(block)

    @property
    def set_aside(self) -> float:
        """The part of all blocks that were measured again."""
        return self.stolen / max(1, self.blocks)

    def _undisturbed(self, measure: Callable[[], Block]) -> Block:
        for _ in range(PATIENCE):
            self.blocks += 1
            block = measure()
            if not block.stolen or not self.again:
                break
            self.stolen += 1
        return block

    def local(self, n: int, *, service: int = 0, index: int = 0, write: bool = False) -> float:
        """Nanoseconds that one call of the handler takes from Python, in the far process, over `n` calls."""
        self.far.ask("local", service, index, write, WARM_UP)
        return self.far.ask("local", service, index, write, n) / n

    def pin(self, near: int, far: int) -> None:
        """Move both processes."""
        os.sched_setaffinity(0, {near})
        self.far.ask("pin", far)
