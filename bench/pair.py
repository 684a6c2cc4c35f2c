"""The near process of a pair: starts the far one, and times blocks of the floor and blocks of work
against it.

The near process stands for the vCPU workers (the same `struct sio_client`, driven from C), the far one
is a shard. Both are pinned while the pair lives.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from shardio._measure import ffi, lib
from shardio.bench import messages
from shardio.bench.blocks import PATIENCE, SAMPLE_EVERY, Block, new_block, patience_ticks, timed
from shardio.bench.errors import BenchError
from shardio.closing import Closing
from shardio.fabric import Fabric, Port
from shardio.range import MmioRange, PioRange
from shardio.routing import AddressMap

ANSWER_TIMEOUT_S = 30.0
WARM_UP = 200
"""Operations before a block that are not timed: after them both processes are in the loop that is
measured.
"""
POSTED_WARM_UP = 4096
"""The same for posted writes: some laps of the ring."""
POSTED_SAMPLE_EVERY = 512
"""The same for posted writes, which take less than reading the clock does."""


class Setting:
    """A fabric of the benchmark: its counts, what answers on it, and a client per vCPU as they are asked
    for.
    """

    def __init__(
        self,
        handlers: Sequence[messages.Handlers],
        *,
        vcpus: int = 1,
        shards: int = 1,
        shard_of: Sequence[int] | None = None,
    ) -> None:
        """`shard_of`: the shard of each of `handlers`; all on shard 0 by default."""
        self.handlers = tuple(handlers)
        self.shard_of = tuple(shard_of or [0] * len(handlers))
        self.fabric = Fabric.create(vcpus=vcpus, shards=shards, ranges=sum(h.count for h in handlers))
        self.doorbells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(shards)]
        routes = AddressMap(self.fabric)
        for group, shard in zip(self.handlers, self.shard_of, strict=True):
            for i in range(group.count):
                base = group.base + i * group.stride
                span = MmioRange(base, group.size) if group.space else PioRange(base, group.size)
                route = routes.add(span, (shard,), posted=group.posted)
                assert route.index == group.first + i, "indices are given out in order"
        routes.publish()

    def client(self, vcpu: int = 0) -> Port:
        """The client of a vCPU."""
        return Port(self.fabric, vcpu, dict(enumerate(self.doorbells)))

    def service(self, shard: int = 0) -> messages.Service:
        """What the far process is told of one shard."""
        mine = [group for group, owner in zip(self.handlers, self.shard_of, strict=True) if owner == shard]
        return messages.Service(self.fabric.fd, shard, self.doorbells[shard], mine)

    def close(self) -> None:
        """Give the fabric back."""
        for doorbell in self.doorbells:
            os.close(doorbell)
        self.doorbells = []
        self.fabric.close()


class FarProcess:
    """A far process and the socket to it."""

    def __init__(self, services: Sequence[messages.Service], line_fd: int, cpu: int | None) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(ANSWER_TIMEOUT_S)
        fds = [theirs.fileno(), line_fd]
        fds += [fd for service in services for fd in (service.fabric, service.doorbell)]
        with theirs:
            # From the folder that shardio was imported from, wherever the caller is.
            code = (
                f"import sys; sys.path[:] = {sys.path!r}; from shardio.bench.far import main; "
                f"main({theirs.fileno()}, {os.getpid()})"
            )
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], pass_fds=fds, stdin=subprocess.DEVNULL
            )
        messages.send(self.socket, messages.Setup(line_fd, cpu, list(services)))
        self.answer()

    def ask(self, message: messages.Message) -> int:
        """Send a request and wait for what it took, in nanoseconds."""
        messages.send(self.socket, message)
        return self.answer()

    def answer(self) -> int:
        """Wait for `Took`. Raises `BenchError` when the process ended or does not answer."""
        with contextlib.suppress(TimeoutError):
            message = messages.receive(self.socket)
            if isinstance(message, messages.Took):
                return message.ns
            raise BenchError("the far process of the benchmark ended", "see its traceback above")
        raise BenchError(
            f"the far process has not answered for {ANSWER_TIMEOUT_S} s", "run on a quieter machine"
        )

    def close(self) -> None:
        """End the process and collect it."""
        self.socket.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Pair(Closing):
    """Two processes over some settings; `services` of several settings may be answered by the one far
    process.

    `cpus`: (near, far). Raises `BenchError` where the far process cannot be started.
    """

    def __init__(self, settings: Sequence[Setting], cpus: tuple[int, int] | None) -> None:
        self.settings = tuple(settings)
        self._before = os.sched_getaffinity(0)
        self._line_fd = os.memfd_create("shardio-bench", os.MFD_CLOEXEC)
        os.ftruncate(self._line_fd, mmap.PAGESIZE)
        self._page = mmap.mmap(self._line_fd, mmap.PAGESIZE)
        self.line: Any = ffi.cast("uint64_t *", ffi.from_buffer(self._page))
        self.blocks = self.stolen = 0
        self.again = True
        """Whether disturbed blocks are measured again."""
        if cpus is not None:
            os.sched_setaffinity(0, {cpus[0]})
        try:
            self.far = FarProcess(
                [setting.service() for setting in self.settings],
                self._line_fd,
                cpus[1] if cpus is not None else None,
            )
        except BaseException:
            self._release()
            raise

    def close(self) -> None:
        """End the far process, close the settings, and run where this process ran before."""
        self.far.close()
        self._release()

    def _release(self) -> None:
        os.sched_setaffinity(0, self._before)
        self.line = None
        self._page.close()
        os.close(self._line_fd)
        for setting in self.settings:
            setting.close()

    def floor(self, n: int) -> Block:
        """A block of `n` bare ping-pongs."""
        return self._undisturbed(lambda: self._floor(n))

    def work(
        self,
        client: Port,
        n: int,
        space: int,
        addresses: Any,
        *,
        write: bool = False,
        size: int = 4,
        posted: int | None = None,
    ) -> Block:
        """A block of `n` accesses at `addresses` (`address_array`), each taken in turn. `posted`: they
        are posted, and this is an address to read after the block, by which all of them have been
        served.

        Raises `BenchError` when an access was not answered.
        """
        return self._undisturbed(lambda: self._work(client, n, space, addresses, write, size, posted))

    @property
    def set_aside(self) -> float:
        """The part of all blocks that were measured again."""
        return self.stolen / max(1, self.blocks)

    def _undisturbed(self, measure: Callable[[], Block]) -> Block:
        for _ in range(PATIENCE):
            self.blocks += 1
            block = measure()
            if not block.stolen or not self.again:
                return block
            self.stolen += 1
        return block

    def _floor(self, n: int) -> Block:
        messages.send(self.far.socket, messages.Echo(n + WARM_UP))
        for count in (WARM_UP, n):
            block = new_block(count)
            ticks = lib.sio_measure_ping(self.line, block, patience_ticks(), 1)
            if block.done != count:
                raise BenchError(
                    "the far process answers no pings", "run on a machine that is not overloaded"
                )
        return timed(block, ticks)

    def _work(
        self, client: Port, n: int, space: int, addresses: Any, write: bool, size: int, posted: int | None
    ) -> Block:
        # Posted writes run at the owner's pace once the ring is full: the block begins there.
        for count in (WARM_UP if posted is None else POSTED_WARM_UP, n):
            every = SAMPLE_EVERY if posted is None else POSTED_SAMPLE_EVERY
            block = new_block(count, addresses, space=space, size=size, write=write, every=every)
            ticks = lib.sio_measure_access(client.view, block)
            if block.failed:
                raise BenchError(
                    f"{block.failed} of {count} accesses were not answered",
                    "report this as a fault of shardio",
                )
        if posted is not None:
            client.read(space, posted, size)
        return timed(block, ticks)

    def local(self, n: int, *, service: int = 0, index: int = 0, write: bool = False) -> float:
        """Nanoseconds that one call of the handler takes from Python, in the far process, over `n` calls."""
        self.far.ask(messages.Local(service, index, write, WARM_UP))
        return self.far.ask(messages.Local(service, index, write, n)) / n

    def pin(self, near: int, far: int) -> None:
        """Move both processes."""
        os.sched_setaffinity(0, {near})
        self.far.ask(messages.Pin(far))
