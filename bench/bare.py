"""A process that has descriptors and guest RAM and nothing of shardio: the floor of wake-ups, for `wakes`.

It answers an eventfd for ever, or raises an irqfd as often as each line of its input says.
"""

from __future__ import annotations

import mmap
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shardio._core import lib as core
from shardio._measure import ffi, lib
from shardio.bench.blocks import tick_ns

PATIENCE_NS = 1e9


@contextmanager
def bare(what: str, cpu: int, fd: int, ram: int, *words: int) -> Iterator[subprocess.Popen[str]]:
    """The process, ready: it does `what` ("answer" or "raise") with eventfd `fd`, on `cpu`. `ram`: the memfd
    of guest RAM; `words`: where in it what is looked at or written lies.
    """
    arguments = ", ".join(map(str, (cpu, fd, ram, *words)))
    code = f"import sys; sys.path[:] = {sys.path!r}; from shardio.bench import bare; bare.{what}({arguments})"
    command = [sys.executable, "-c", code]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, pass_fds=(fd, ram), **pipes) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def answer(cpu: int, bell: int, ram: int, number: int, answered: int) -> None:
    """Put word `number` into word `answered` whenever eventfd `bell` is rung."""
    word = _begin(cpu, ram)
    with select.epoll() as epoll:
        epoll.register(bell, select.EPOLLIN)
        lib.sio_measure_answer(epoll.fileno(), bell, word(number), word(answered))


def raised(cpu: int, irqfd: int, ram: int, count: int) -> None:
    """For each line, "N GAP": raise N interrupts, GAP ns apart, and print for each the nanoseconds until word
    `count` had changed.
    """
    word = _begin(cpu, ram)
    for line in sys.stdin:
        n, gap = map(int, line.split())
        print(*raise_interrupts(irqfd, word(count), n, gap), flush=True)


def raise_interrupts(irqfd: int, count: Any, n: int, gap: int) -> list[float]:
    """Nanoseconds of each."""
    gap_ticks, patience = int(gap / tick_ns()), int(PATIENCE_NS / tick_ns())
    return [lib.sio_measure_raise(irqfd, count, gap_ticks, patience) * tick_ns() for _ in range(n)]


def _begin(cpu: int, ram: int) -> Any:
    if core.sio_die_with_parent(os.getppid()) != 0:
        sys.exit()
    os.sched_setaffinity(0, {cpu})
    words = ffi.from_buffer("uint32_t[]", mmap.mmap(ram, os.fstat(ram).st_size))
    tick_ns()
    print(flush=True)
    return lambda address: words + address // 4
