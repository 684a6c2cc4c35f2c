"""What it costs an access that it can be seen: by a trace, off and on, and by metrics that are scraped."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from shardio._measure import lib
from shardio.bench import steps
from shardio.bench.blocks import address_array, new_block, on_cpu, tick_ns
from shardio.bench.effort import MIN_PAIRS, Effort
from shardio.bench.pair import Handlers, Pair, Setting
from shardio.bench.results import Figure, Rounds, Unit
from shardio.bench.rows import BASE, MMIO, PAGE
from shardio.dispatcher import Dispatcher
from shardio.trace.rings import Rings

OPERATIONS = 1 << 24
"""More than there are in a block that a time ends."""
GET = b"GET /metrics HTTP/1.1\r\n\r\n"


def trace(cpus: tuple[int, int], effort: Effort) -> Iterator[Figure]:
    """Round trips while nobody traces, against a client that is compiled without a trace; and with a trace,
    against without. Nobody collects the records: that is another CPU's work.
    """
    setting = Setting([Handlers(0, MMIO, BASE, PAGE, "native")])
    at, off, on = address_array([BASE]), Rounds(), Rounds()
    with Pair([setting], cpus) as pair:
        client, rings = setting.client(), Rings(setting.fabric)
        rings.want(None)
        for number, _ in enumerate(effort.pairs(off, on)):
            floor = pair.floor(effort.n // 4)
            # Each is first every other time: the first block after the floor's is the slower one.
            order = (True, False) if number % 2 else (False, True)
            work = {untraced: pair.work(client, effort.n, MMIO, at, untraced=untraced) for untraced in order}
            never, silent = work[True], work[False]
            rings.switch(True, [client.view])
            traced = pair.work(client, effort.n, MMIO, at)
            rings.switch(False, [client.view])
            off.add(silent.ns, floor, never.ns, silent.samples)
            on.add(traced.ns, floor, silent.ns, traced.samples)
        del rings  # it holds the fabric
    more = steps.of_the_check()
    name, title, aside = "trace-off", "native handler, trace off, against none compiled in", pair.set_aside
    yield off.figure(name, title, Unit.NO_TRACE, reach=1.01, gate=1.05, instructions=more, set_aside=aside)
    title = "native handler, traced, against not"
    yield on.figure("traced", title, Unit.UNTRACED, reach=1.5, gate=2.0, set_aside=aside)


def metrics(cpus: tuple[int, int], effort: Effort) -> Iterator[Figure]:
    """Round trips while a scraper asks once a second for the metrics, against nobody asking: what one scrape
    adds to a block, spread over a second. The scraper and the metrics' server run on either CPU.

    Raises `HostError` without prometheus_client, and what `Dispatcher` raises.
    """
    ticks = int(effort.seconds / MIN_PAIRS / 2 * 1e9 / tick_ns())
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(1) as scraper,
        Dispatcher(shards=1, pin=False) as made,
    ):
        made.add("shardio.bench.devices:Native", mmio=BASE, size=PAGE)
        port, path, rounds = made.port(0), f"{folder}/metrics", Rounds()
        made.metrics(f"unix:{path}")

        def block() -> tuple[float, float]:
            """Nanoseconds of an access, and of all of them."""
            work = new_block(OPERATIONS, [BASE], space=MMIO, size=4, until=lib.sio_measure_ticks() + ticks)
            took = lib.sio_measure_access(port.view, work) * tick_ns()
            return took / work.done, took

        scraper.submit(_scrape, path).result()  # its thread is there before this one is pinned
        os.sched_setaffinity(made.supervisor.shards[0].pid, {cpus[1]})
        with on_cpu(cpus[0]):
            for _ in effort.pairs(rounds):
                alone, _ = block()
                asked = scraper.submit(_scrape, path)
                beside, took = block()
                asked.result()
                rounds.add(alone + (beside - alone) * took / 1e9, rest=alone)
    title = "native handler, metrics scraped every second, against not"
    yield rounds.figure("scraped", title, Unit.UNSCRAPED, reach=1.01, gate=1.05)


def _scrape(path: str) -> int:
    """Asks as Prometheus does; how many bytes there were."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(GET)
        return sum(map(len, iter(lambda: sock.recv(65536), b"")))
