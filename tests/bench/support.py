"""What libraries open once and keep until the program ends: opened before a test counts descriptors."""

from __future__ import annotations

from multiprocessing import resource_tracker

from shardio.bench.peers.peer import context


def start_what_multiprocessing_keeps() -> None:
    """Its resource tracker and its arenas of memory."""
    resource_tracker.ensure_running()
    arrays = [context.RawArray("B", size) for size in (4096, 70_000, 70_000, 70_000)]
    del arrays
