"""How long a guest waits when a process dies: `python -m bench.recovery [KILLS]` prints the table of
docs/performance.md, "Recovery". `tests.e2e.deaths` says what is measured.
"""

from __future__ import annotations

import logging
import os
import statistics
import sys
from collections.abc import Iterable

from tests.e2e.deaths import computing, shard_kills, worker_kills

KILLS = 24


def _row(name: str, bound: int | None, found: Iterable[float]) -> None:
    times = sorted(found)
    cells = (f"{each:.1f}" for each in (statistics.median(times), times[0], times[-1]))
    print(f"| {name} | {bound or '-'} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    logging.getLogger("shardio.supervisor").setLevel(logging.CRITICAL)  # of its deaths
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs, {count} kills each; milliseconds")
    print("\n| killed | bound | p50 | min | max |\n|---|---|---|---|---|")
    _row("shard, a spare is warm", 10, shard_kills(count, spare=True))
    _row("shard, no spare", 150, shard_kills(count, spare=False))
    _row("vCPU worker", 10, worker_kills(count))
    _row("shard, a spare is warm; the VMM's program computes", None,
         shard_kills(count, spare=True, wait=computing))  # fmt: skip
    _row("vCPU worker; the VMM's program computes", None, worker_kills(count, wait=computing))


if __name__ == "__main__":
    main()
