"""Measures a peer: blocks of the floor and blocks of calls in turn, with the same server process.

A block counts by its median call: what a stranger's time slice adds is in p99 and p99.9, where each call is.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import closing

from shardio.bench.blocks import on_cpu
from shardio.bench.effort import Effort
from shardio.bench.errors import BenchError
from shardio.bench.peers.peer import READ, WRITE, Session
from shardio.bench.results import Figure, Rounds, Unit

BLOCK_NS, FLOORS, PROBE = 4_000_000, 2048, 64


def measure(peer: type[Session], cpus: tuple[int, int], effort: Effort) -> Iterator[Figure]:
    """A peer's round trip, in floors. Raises `BenchError` where it cannot be measured, or answers wrongly."""
    if reason := peer.missing():
        raise BenchError(reason, peer.hint)
    with on_cpu(cpus[0]), closing(peer(cpus[1])) as session:
        check(session)
        clock, rounds = time.perf_counter_ns, Rounds()
        probe = statistics.median(session.calls(PROBE, clock))
        n = max(PROBE, min(effort.n, int(BLOCK_NS / max(1, probe))))
        for _ in effort.pairs(rounds):
            floor = session.floor(FLOORS)
            times = session.calls(n, clock)
            rounds.add(statistics.median(times), floor, latency=times)
        yield rounds.figure(peer.name, peer.title, Unit.FLOOR, note=session.note)


def check(session: Session) -> None:
    """The device behind a session reads what was written to it. Raises `BenchError` when it does not."""
    for value in (0, 1, 0xFFFF_FFFF, 0x1234_5678):
        session.call(WRITE, 0, 4, value)
        if (found := session.call(READ, 0, 4, 0)) != value:
            text = f"the peer's device reads {found:#x} where {value:#x} was written"
            raise BenchError(text, "correct the peer")
