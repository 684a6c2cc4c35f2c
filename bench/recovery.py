"""How long a guest waits when a process dies: `python -m shardio.bench.recovery [KILLS]` prints the table of
docs/performance.md, "Recovery".

A guest reads one device over and over; each kill is a SIGKILL from this process. The device notes in a shared
page when it answered its first access, and the longest time between two of them.
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shardio.bench.errors import BenchError
from shardio.bench.exits import ADDRESS, GUESTS
from shardio.bench.witness import FIRST, LAST, LONGEST, MADE, Page
from shardio.machine import Machine
from shardio.supervisor import Supervisor

KILLS = 24
KILLS_A_MACHINE = 4
"""One more within 10 s, and the shard would be given up."""
GOES_ON_NS = 30_000_000
PATIENCE_S = 20.0
NEIGHBOURS = (("Uart16550", 0x3F8, 4), ("CmosRtc", 0x70, 8), ("I8042", 0x60, 1))
"""Devices beside the one that is asked: name, port, interrupt line."""

Wait = Callable[[Callable[[], bool]], None]


def looking(condition: Callable[[], bool], between: Callable[[], object] = lambda: time.sleep(0.002)) -> None:
    """Looks every 2 ms whether `condition` holds: what is watched has the CPU, and the interpreter."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"the guest did not go on within {PATIENCE_S} s", "run on a quieter machine")
        between()


def computing(condition: Callable[[], bool]) -> None:
    """The same, but computes in between: a program that has other things to do than wait for its machine."""
    looking(condition, lambda: sum(range(5000)))


@contextmanager
def running() -> Iterator[tuple[Machine, Supervisor, memoryview]]:
    """A machine whose guest asks the device for ever, its supervisor, and what the device notes."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(mmap.PAGESIZE))
        file.flush()
        page = Page(file.name)
        try:
            with Machine(memory="2M", shards=1, hang_deadline=PATIENCE_S) as vm:
                vm.load(GUESTS["mmio-read"].code(), mode="protected")
                for name, port, irq in NEIGHBOURS:
                    vm.add(f"shardio.devices:{name}", pio=port, irq=irq)
                vm.add("shardio.bench.witness:Witness", mmio=ADDRESS, path=file.name)
                vm.start()
                yield vm, vm.dispatcher.supervisor, page.words
        finally:
            page.close()


def shard_kills(count: int, *, spare: bool, wait: Wait = looking) -> Iterator[float]:
    """Milliseconds from each kill of a shard to its successor's first answer. `spare`: one is warm."""
    for first in range(0, count, KILLS_A_MACHINE):
        with running() as (vm, supervisor, page):
            if not spare:
                supervisor.call(supervisor._spares.end)
            for _ in range(first, min(first + KILLS_A_MACHINE, count)):
                looking(lambda: page[FIRST] != 0 and (supervisor.spare_pid != 0) is spare)
                made, pid = page[MADE], vm.statistics().shards[0].pid
                killed = time.monotonic_ns()
                os.kill(pid, signal.SIGKILL)
                wait(lambda made=made: page[MADE] > made and page[FIRST] != 0)  # type: ignore[misc]
                yield (page[FIRST] - killed) / 1e6


def worker_kills(count: int, *, wait: Wait = looking) -> Iterator[float]:
    """Milliseconds that the device was not asked, around each kill of the vCPU's worker."""
    with running() as (vm, supervisor, page):
        looking(lambda: page[FIRST] != 0 and supervisor.spare_pid != 0)
        for _ in range(count):
            before = vm.statistics().vcpus[0]
            page[LONGEST] = 0
            killed = time.monotonic_ns()
            os.kill(before.pid, signal.SIGKILL)
            wait(lambda killed=killed: page[LAST] > killed + GOES_ON_NS)  # type: ignore[misc]
            if vm.statistics().vcpus[0].spawns == before.spawns:
                raise BenchError("the worker was not replaced", "report this as a fault of shardio")
            yield page[LONGEST] / 1e6


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    logging.getLogger("shardio.supervisor").setLevel(logging.CRITICAL)  # of its deaths
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs, {count} kills each; milliseconds")
    print("\n| killed | bound | p50 | min | max |\n|---|---|---|---|---|")
    busy = "the VMM's program computes"
    rows = {
        "shard, a spare is warm | 10": shard_kills(count, spare=True),
        "shard, no spare | 150": shard_kills(count, spare=False),
        "vCPU worker | 10": worker_kills(count),
        f"shard, a spare is warm; {busy} | -": shard_kills(count, spare=True, wait=computing),
        f"vCPU worker; {busy} | -": worker_kills(count, wait=computing),
    }
    for name, found in rows.items():
        times = sorted(found)
        cells = (f"{each:.1f}" for each in (statistics.median(times), times[0], times[-1]))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
