"""A turn of the drain loop in an event loop of one's own."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable

import pytest

from shardio.fabric import Owner, Port, Turn
from tests.fabric.support import BASE, MMIO, PATIENCE_S, Log, bench

PAUSE_S = 0.02
"""How long a turn waits for a doorbell that has not been rung."""
TRIES = 5


def woken(owner: Owner, access: Callable[[], object], take: Callable[[], object]) -> float:
    """Seconds that the turn took which answered an access of a sleeping owner, after `take`."""
    while owner.turn(500_000) is not Turn.ASLEEP:
        pass
    client = threading.Thread(target=access)
    client.start()
    ready, _, _ = select.select([owner.doorbell], [], [], PATIENCE_S)
    assert ready
    take()
    begin = time.monotonic()
    owner.turn(1)
    spent = time.monotonic() - begin
    client.join()
    return spent


@pytest.mark.parametrize("access", [lambda c: c.read(MMIO, BASE, 4), lambda c: c.write(MMIO, BASE, 4, 1)])
@pytest.mark.parametrize("loop_reads", [True, False])
def test_a_turn_waits_for_nothing_whoever_reads_the_doorbell(
    access: Callable[[Port], object], loop_reads: bool
) -> None:
    with bench() as b:
        device = Log()
        owner, _, client = b.connect(device)
        take = (lambda: os.eventfd_read(owner.doorbell)) if loop_reads else (lambda: None)

        spent = [woken(owner, lambda: access(client), take) for _ in range(TRIES)]

        assert len(device.seen) == TRIES
        assert min(spent) < PAUSE_S / 2
        assert b.fabric.shard_counters(0).lost_wakeups == 0


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_many_vcpus_are_answered_whether_they_were_idle_or_not(write: bool) -> None:
    """An owner of many vCPUs looks at those that asked lately, and at the others in turn."""
    with bench(vcpus=256) as b:
        device = Log()
        owner, _, first = b.connect(device)
        clients = [first, *(b.client(vcpu) for vcpu in (17, 63, 64, 255))]

        with b.serving(owner):
            for client in clients * 3:
                client.write(MMIO, BASE, 4, 1) if write else client.read(MMIO, BASE, 4)

        assert len(device.seen) == 15
        assert b.fabric.shard_counters(0).lost_wakeups == 0
