"""How long a guest waits when a process dies: `python -m bench.recovery [KILLS]` prints the table of
docs/performance.md, "Recovery".

A guest reads one device over and over. Each kill is a SIGKILL from this process. The device notes in a shared
page when it answered its first access, and the longest time between two of them.

* shard, warm spare: from the kill to the successor's first answer, a spare waiting.
* shard, cold: the same without a spare.
* vCPU worker: the longest time that the device was not asked around the kill.
"""

from __future__ import annotations

import mmap
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench.witness import FIRST, LAST, LONGEST, MADE, Page
from shardio import Machine
from tests.e2e.support import MMIO, NEVER, until
from tests.guests.build import guest

KILLS = 24
KILLS_A_MACHINE = 4
"""One more within 10 s, and the shard would be given up."""
QUIET_S = 0.1
"""How long the guest runs undisturbed before a kill, once a spare is warm."""


@contextmanager
def running(spare: bool) -> Iterator[tuple[Machine, Any, Page]]:
    """A machine whose guest asks the device for ever, its supervisor, and what the device notes."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="bench-recovery-") as file:
        file.write(bytes(mmap.PAGESIZE))
        file.flush()
        page = Page(file.name)
        try:
            with Machine(memory="2M", shards=1, hang_deadline=30.0) as vm:
                vm.load(guest("mmio_loop", COUNT=NEVER, WRITE=0))
                vm.add("bench.witness:Witness", mmio=MMIO, path=file.name)
                vm.start()
                supervisor: Any = vm._engine.supervisor  # type: ignore[union-attr]
                if not spare:
                    supervisor.call(supervisor._spares.end)
                yield vm, supervisor, page
        finally:
            page.close()


def _after(condition: Callable[[], bool], what: str) -> None:
    """The watcher sleeps: what it watches needs the CPU."""

    def there() -> bool:
        time.sleep(0.002)
        return condition()

    until(there, what, 10)


def shard_kills(count: int, *, spare: bool) -> list[float]:
    """Milliseconds from each kill to the successor's first answer."""
    found: list[float] = []
    while len(found) < count:
        with running(spare) as (vm, supervisor, page):
            for _ in range(min(KILLS_A_MACHINE, count - len(found))):
                _after(lambda: page[FIRST] != 0, "the guest runs")
                _after(lambda: not spare or supervisor.spare_pid != 0, "a spare is warm")
                time.sleep(QUIET_S)
                made, pid = page[MADE], vm.statistics().shards[0].pid
                began = time.monotonic_ns()
                os.kill(pid, signal.SIGKILL)
                _after(lambda made=made: page[MADE] > made and page[FIRST] != 0, "an answer")  # type: ignore[misc]
                found.append((page[FIRST] - began) / 1e6)
    return found


def worker_kills(count: int) -> list[float]:
    """Milliseconds that the device was not asked, around each kill."""
    found: list[float] = []
    with running(True) as (vm, _, page):
        for _ in range(count):
            time.sleep(QUIET_S)
            seen = vm.statistics().vcpus[0]
            page[LONGEST] = 0
            began = time.monotonic_ns()
            os.kill(seen.pid, signal.SIGKILL)
            _after(lambda began=began: page[LAST] > began + 30_000_000, "an access")  # type: ignore[misc]
            assert vm.statistics().vcpus[0].spawns > seen.spawns
            found.append(page[LONGEST] / 1e6)
    return found


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs, {count} kills each; milliseconds")
    print("\n| killed | bound | p50 | max | min |\n|---|---|---|---|---|")
    for name, bound, measure in (
        ("shard, warm spare", 10, lambda: shard_kills(count, spare=True)),
        ("shard, cold", 150, lambda: shard_kills(count, spare=False)),
        ("vCPU worker", 10, lambda: worker_kills(count)),
    ):
        times = measure()
        cells = (f"{each:.1f}" for each in (statistics.median(times), max(times), min(times)))
        print(f"| {name} | {bound} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
