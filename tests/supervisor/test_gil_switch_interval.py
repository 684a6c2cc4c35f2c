"""The interpreter's switch interval: short while there is something urgent, and never left so."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardio.supervisor.gil_switch_interval import URGENT_S, WATCH_S, GilSwitchInterval
from tests.e2e.support import until
from tests.supervisor.devices import Journal, Troubled
from tests.supervisor.support import BASE, MMIO, cluster

USUAL_S = 0.004
QUICK_S = 0.00006
"""Of those that a microsecond's rounding would show in."""


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    """The program has an interval of its own, and has it again."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(USUAL_S)
    yield
    after = sys.getswitchinterval()
    sys.setswitchinterval(before)
    assert after == pytest.approx(USUAL_S)


def test_the_most_urgent_wish_counts_and_the_last_to_go_restores() -> None:
    first, second = GilSwitchInterval(), GilSwitchInterval()
    seen = []

    for step in (
        lambda: first.begin("watch", WATCH_S),
        lambda: second.begin("watch", WATCH_S),
        lambda: first.begin("death"),
        lambda: first.begin("death"),
        lambda: first.end("watch"),
        lambda: first.end("death"),
        lambda: first.end("death"),
        lambda: second.end_all(),
    ):
        step()
        seen.append(sys.getswitchinterval())

    assert seen == pytest.approx([WATCH_S, WATCH_S, *[URGENT_S] * 3, WATCH_S, WATCH_S, USUAL_S])


def test_an_interval_that_is_shorter_already_stays() -> None:
    haste = GilSwitchInterval()
    sys.setswitchinterval(QUICK_S)

    haste.begin("death")
    during = sys.getswitchinterval()
    haste.end("death")
    after = sys.getswitchinterval()
    sys.setswitchinterval(USUAL_S)

    assert [during, after] == pytest.approx([QUICK_S] * 2)


def test_a_machine_makes_switch_interval_until_the_successor_holds_its_devices(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with cluster() as c:
        c.add(Troubled, path=str(tmp_path / "log"), orders="\nwait", gate=str(gate))
        client = c.client()

        os.kill(c.shards[0].pid, signal.SIGKILL)
        until(lambda: c.shards[0].spawns == 2, "there is a successor")
        # The supervisor waits for it; nothing else is urgent.
        until(lambda: c.supervisor._switch_interval._wanted.keys() == {"watch", c.shards[0]}, "it waits")
        during = sys.getswitchinterval()
        os.close(os.open(gate, os.O_WRONLY))
        client.read(MMIO, BASE, 4)
        until(lambda: c.supervisor._switch_interval._wanted.keys() == {"watch"}, "all is well")
        after = sys.getswitchinterval()

    assert [during, after] == pytest.approx([URGENT_S, WATCH_S])


def test_a_supervisor_that_ends_leaves_the_interval_as_it_was() -> None:
    with cluster() as c:
        c.add(Journal)
        os.kill(c.shards[0].pid, signal.SIGKILL)  # it ends in the midst of a recovery

    assert sys.getswitchinterval() == pytest.approx(USUAL_S)
