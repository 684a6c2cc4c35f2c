"""How many instructions an access takes, on any host: the processor's trap flag is set, and each instruction
that ends counts (`sio_measure_step`). No counter of the processor's is needed, which few virtual machines
have.

The client's side is what one access more adds, the owner's what one request more in a scan adds.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial

from shardio._core import ffi as core_ffi
from shardio._core import lib as core
from shardio._measure import lib
from shardio.bench.blocks import address_array, new_block
from shardio.bench.devices import make
from shardio.bench.pair import Handlers, Setting
from shardio.fabric import Owner

BASE, MMIO, PAGE = 0xD000_0000, 1, 0x1000
PING = 8
"""Of the floor itself: each side stores once, and polls once that the turn has come."""
WARM_UP, TIMES, MORE = 80, 3, 16
"""A client times each of its first 64 accesses: what is counted comes after them."""


@cache
def instructions(device: str, *, posted: bool = False) -> tuple[int, int] | None:
    """Of a round trip, or of a posted write: the client's, and the owner's with the handler. None where this
    processor cannot count them.
    """
    if lib.sio_measure_step(0, 0, 0) < 0:
        return None
    return _client(posted), _owner(device, posted)


def beyond(device: str, *, posted: bool = False) -> float | None:
    """Both sides together, less a ping of the floor."""
    found = instructions(device, posted=posted)
    return None if found is None else float(sum(found) - (0 if posted else PING))


def of_the_check() -> float | None:
    """What a client executes in a read, of no trace, to see that there is none; None as above."""
    return float(_client() - _client(untraced=True)) if lib.sio_measure_step(0, 0, 0) >= 0 else None


@cache
def _client(posted: bool = False, *, untraced: bool = False) -> int:
    """A native handler answers between two instructions: at the client's first look the reply is there."""
    with _served("native", posted, untraced) as (owner, access):
        scan = int(core_ffi.cast("uintptr_t", core_ffi.addressof(core, "sio_owner_scan")))
        between = (scan, int(core_ffi.cast("uintptr_t", owner.view)))
        access(0, WARM_UP, *between)
        more, one = (min(access(0, n, *between) for _ in range(TIMES)) for n in (1 + MORE, 1))
        return (more - one) // MORE


def _owner(device: str, posted: bool) -> int:
    """What a scan takes more with one request more: threads wait for the replies meanwhile."""
    with _served(device, posted) as (owner, access):
        boxes = [core.sio_mailbox(owner.fabric.view, 0, vcpu) for vcpu in (0, 1)]

        def scan(requests: int, count: Callable[..., int]) -> int:
            threads = [threading.Thread(target=access, args=(vcpu, 1)) for vcpu in range(requests)]
            for thread in threads:
                thread.start()
            while not posted and any(box.state & 3 != core.SIO_REQUEST for box in boxes[:requests]):
                os.sched_yield()
            for thread in threads if posted else ():
                thread.join()
            found = count(partial(core.sio_py_scan, owner.view))
            for thread in threads:
                thread.join()
            return found

        for _ in range(WARM_UP):
            scan(2, lambda act: int(act()))
        two, one = (min(scan(n, _steps) for _ in range(TIMES)) for n in (2, 1))
        return two - one


@contextmanager
def _served(device: str, posted: bool, untraced: bool = False) -> Iterator[tuple[Owner, Callable[..., int]]]:
    """An owner with a device, and what makes a vCPU's accesses to it; counted where it is told what to call
    between two instructions.
    """
    setting = Setting([Handlers(0, MMIO, BASE, PAGE, device, posted=posted)], vcpus=2)
    owner, at = Owner(setting.fabric, 0), address_array([BASE])
    clients = [setting.client(vcpu) for vcpu in (0, 1)]
    owner.set_handler(0, setting.handlers[0].ranges[0], make(device), posted=posted)

    def access(vcpu: int, n: int, *between: int) -> int:
        block = new_block(n, at, space=MMIO, size=4, write=posted, untraced=untraced, every=1 << 20)
        act = partial(lib.sio_measure_access, clients[vcpu].view, block)
        return _steps(act, *between) if between else int(act())

    try:
        yield owner, access
    finally:
        owner.close()
        setting.close()


def _steps(act: Callable[[], object], between: int = 0, argument: int = 0) -> int:
    lib.sio_measure_step(1, between, argument)
    try:
        act()
    finally:
        counted = int(lib.sio_measure_step(0, 0, 0))
    return counted
