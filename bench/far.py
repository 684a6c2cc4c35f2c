"""The far process of a pair: shards as they really run, which also answer the floor's pings.

Its event loop and drain loop are the ones of a shard process (`shardio.shard.runtime`): a work block
measures what a shard does. Between blocks the near process asks over a socket, which wakes the drain
loop as any host I/O would.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

from shardio._core import lib as core
from shardio._measure import ffi, lib
from shardio.bench import messages
from shardio.bench.blocks import patience_ticks
from shardio.bench.devices import make
from shardio.bench.errors import BenchError
from shardio.fabric import Fabric
from shardio.range import MmioRange, PioRange
from shardio.shard.runtime import Runtime, new_event_loop

LOCAL_RUN = 500
"""Calls timed together."""


class Far:
    """The process's state: its shards and their devices by range index."""

    def __init__(self, control: socket.socket) -> None:
        setup = messages.receive(control)
        if not isinstance(setup, messages.Setup):
            raise BenchError("the near process said nothing", "start this process from shardio.bench.pair")
        self.control = control
        if setup.cpu is not None:
            os.sched_setaffinity(0, {setup.cpu})
        self._page = mmap.mmap(setup.line, mmap.PAGESIZE)
        self._line = ffi.cast("uint64_t *", ffi.from_buffer(self._page))
        self.loop, self._epoll_fd = new_event_loop()
        asyncio.set_event_loop(self.loop)
        self._devices: list[dict[int, Any]] = []
        self._runtimes = [self._serve(service) for service in setup.services]

    def run(self) -> None:
        """Until the near process is gone."""
        self.loop.add_reader(self.control, self._on_message)
        for runtime in self._runtimes:
            runtime.serve()
        messages.send(self.control, messages.Took(0))
        self.loop.run_forever()
        for runtime in self._runtimes:
            runtime.close()
        self.loop.close()

    def _serve(self, service: messages.Service) -> Runtime:
        fabric = Fabric.attach(service.fabric)
        runtime = Runtime(self.loop, self._epoll_fd, fabric, service.shard, service.doorbell, _print_failure)
        devices: dict[int, Any] = {}
        for handlers in service.handlers:
            for i in range(handlers.count):
                base = handlers.base + i * handlers.stride
                span = MmioRange(base, handlers.size) if handlers.space else PioRange(base, handlers.size)
                device = devices[handlers.first + i] = make(handlers.device)
                runtime.owner.set_handler(handlers.first + i, span, device, posted=handlers.posted)
        self._devices.append(devices)
        return runtime

    def _on_message(self) -> None:
        match messages.receive(self.control):
            case messages.Echo(n):
                lib.sio_measure_echo(self._line, n, patience_ticks(), 1)
            case messages.Local(service, index, write, n):
                took = call_locally(self._devices[service][index], write, n)
                messages.send(self.control, messages.Took(took))
            case messages.Pin(cpu):
                os.sched_setaffinity(0, {cpu})
                messages.send(self.control, messages.Took(0))
            case _:
                self.loop.stop()


def call_locally(device: Any, write: bool, n: int) -> int:
    """Nanoseconds for `n` calls of the device's register-form handler from a Python loop: the median of
    short runs.
    """
    run = _local_writes if write else _local_reads
    handler = device.write if write else device.read
    runs = sorted(run(handler) for _ in range(max(1, n // LOCAL_RUN)))
    return runs[len(runs) // 2] * n // LOCAL_RUN


def _local_reads(handler: Callable[[int, int], int]) -> int:
    begin = time.perf_counter_ns()
    for _ in repeat(None, LOCAL_RUN):
        handler(0, 4)
    return time.perf_counter_ns() - begin


def _local_writes(handler: Callable[[int, int, int], None]) -> int:
    begin = time.perf_counter_ns()
    for _ in repeat(None, LOCAL_RUN):
        handler(0, 4, 1)
    return time.perf_counter_ns() - begin


def _print_failure(name: str, text: str) -> None:
    print(f"shardio bench: {name}: {text}", file=sys.stderr)


def main(control_fd: int, parent: int) -> None:
    """Run as the far process; `parent`: the near one's pid."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the near process to act on
    if core.sio_die_with_parent(parent) == 0:
        with socket.socket(fileno=control_fd) as control:
            Far(control).run()
