"""The far process of a pair: shards as they really run, which also answer the floor's pings.

Its event loop and drain loop are the ones of a shard process (`shardio.shard.runtime`): a work block
measures what a shard does. Between blocks the near process asks over a pipe, which wakes the drain
loop as any host I/O would.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import statistics
import sys
import timeit
from multiprocessing.connection import Connection
from typing import Any

from shardio._core import lib as core
from shardio._measure import ffi, lib
from shardio.bench.blocks import patience_ticks
from shardio.bench.devices import make
from shardio.bench.pair import Service
from shardio.fabric import Fabric
from shardio.shard.runtime import Loop, Runtime

LOCAL_RUN = 500
"""Calls timed together."""


class Far:
    """The process's state: its shards and their devices by range index. What the near one asks for are
    methods.
    """

    def __init__(self, pipe: Connection) -> None:
        line, cpu, services = pipe.recv()
        self.pipe = pipe
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        self._page = mmap.mmap(line, mmap.PAGESIZE)
        self._line = ffi.cast("uint64_t *", ffi.from_buffer(self._page))
        self.loop = Loop()
        asyncio.set_event_loop(self.loop)
        self._devices: list[dict[int, Any]] = []
        self._runtimes = [self._serve(service) for service in services]

    def run(self) -> None:
        """Until the near process is gone."""
        self.loop.add_reader(self.pipe.fileno(), self._on_request)
        for runtime in self._runtimes:
            runtime.serve()
        self.pipe.send(0)
        self.loop.run_forever()
        for runtime in self._runtimes:
            runtime.close()
        self.loop.close()

    def _serve(self, service: Service) -> Runtime:
        fabric = Fabric.attach(service.fabric)
        runtime = Runtime(self.loop, fabric, service.shard, service.doorbell, _print_failure)
        devices: dict[int, Any] = {}
        for handlers in service.handlers:
            for index, span in enumerate(handlers.ranges, handlers.first):
                devices[index] = make(handlers.device)
                runtime.owner.set_handler(index, span, devices[index], posted=handlers.posted)
        self._devices.append(devices)
        return runtime

    def _on_request(self) -> None:
        try:
            name, *arguments = self.pipe.recv()
        except EOFError:
            self.loop.stop()
        else:
            getattr(self, name)(*arguments)

    def echo(self, n: int, pause: int) -> None:
        """Answer `n` pings of the floor. Not acknowledged: the pings are."""
        lib.sio_measure_echo(self._line, n, patience_ticks(), pause)

    def local(self, service: int, index: int, write: bool, n: int) -> None:
        """Call a handler `n` times from a Python loop; answered by the nanoseconds that it took."""
        self.pipe.send(call_locally(self._devices[service][index], write, n))

    def pin(self, cpu: int) -> None:
        """Run on this CPU from now on."""
        os.sched_setaffinity(0, {cpu})
        self.pipe.send(0)


def call_locally(device: Any, write: bool, n: int) -> int:
    """Nanoseconds for `n` calls of the device's register-form handler from a Python loop: the median of
    short runs.
    """
    given, call = (device.write, "handler(0, 4, 1)") if write else (device.read, "handler(0, 4)")
    timer = timeit.Timer(call, "handler = given", globals={"given": given})
    runs = timer.repeat(max(1, n // LOCAL_RUN), LOCAL_RUN)
    return round(statistics.median(runs) * 1e9 * n / LOCAL_RUN)


def _print_failure(name: str, text: str) -> None:
    print(f"shardio bench: {name}: {text}", file=sys.stderr)


def main(pipe_fd: int, parent: int) -> None:
    """Run as the far process; `parent`: the near one's pid."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the near process to act on
    if core.sio_die_with_parent(parent) == 0:
        with Connection(pipe_fd) as pipe:
            Far(pipe).run()
