"""A worker that is killed inside an access, or at rest, is followed by one that goes on exactly there."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from shardio import MmioRange, PioRange
from shardio._core import lib
from shardio.vcpu import VcpuState
from tests.fabric.support import Log
from tests.guests.build import guest
from tests.soft.rig import Killer, Rig, rig

MMIO = 0xD000_0000


def run_to_the_end(r: Rig) -> int:
    """Until its vCPU halts, a worker after the other; how many were killed."""
    worker, kills = r.workers[0], 0
    r.start()
    while True:
        cause = worker.wait_for_death()
        if worker.ended:
            return kills
        assert cause == signal.SIGKILL
        kills += 1
        worker.spawn()


def every_access(kill_at: set[int]) -> tuple[list[object], list[object], int]:
    """The accesses of the guest, its checksum, and the kills."""
    device, end = Killer(), Log()
    with rig(guest("every_access", COUNT=20), irqchip=False) as r:
        device.kill_at = kill_at
        device.kill = lambda: os.kill(r.workers[0].pid, signal.SIGKILL)
        r.add(device, PioRange(0x80, 4))
        r.add(device, MmioRange(MMIO, 0x1000))
        r.add(end, PioRange(0x84, 4))
        kills = run_to_the_end(r)
        assert r.workers[0].state is VcpuState.HALTED
    return list(device.seen), list(end.seen), kills


def test_every_access_happens_exactly_once() -> None:
    undisturbed = every_access(set())
    accesses = len(undisturbed[0])
    # 13 accesses a round: with a step of 7 each of them is hit.
    killed = every_access(set(range(1, accesses, 7)))

    assert killed[:2] == undisturbed[:2]
    assert killed[2] == len(range(1, accesses, 7))


def test_a_worker_that_sleeps_in_hlt_is_replaced() -> None:
    with rig(guest("hlt")) as r:
        worker = r.workers[0]
        r.start()
        r.until(lambda: bool(worker.cpu.halted) and worker.cpu.phase == lib.SIO_SOFT_REST, "not asleep")
        worker.kill()
        worker.wait_for_death()
        worker.spawn()
        r.until(lambda: worker.view.spawns == 2, "no second worker")
        worker.command(lib.SIO_PAUSE)
        r.until_state(VcpuState.PAUSED)

        assert worker.cpu.halted


def test_a_worker_that_is_killed_while_it_executes_ends_the_vcpu_with_the_reason() -> None:
    with rig(b"\xeb\xfe", irqchip=False) as r:  # jmp to itself
        worker = r.workers[0]
        r.start()
        r.until(lambda: worker.cpu.phase == lib.SIO_SOFT_RUN, "it does not run")
        worker.kill()
        worker.wait_for_death()
        worker.spawn()
        r.until_state(VcpuState.BROKEN)

        assert worker.view.detail == errno.ENOTRECOVERABLE


@pytest.mark.parametrize("victim", [0, 1])
def test_the_turn_of_a_dead_worker_goes_to_another(victim: int) -> None:
    with rig(guest("pio_loop", VCPUS=2, COUNT=0xFFFF_FFFF, PORT=0x80), 2) as r:
        device = Log()
        r.add(device, PioRange(0x80, 4))
        r.start()
        r.until(lambda: r.workers[1].view.exits[2] > 100, "two do not run")  # KVM_EXIT_IO
        other = r.workers[1 - victim]
        r.workers[victim].kill()
        r.workers[victim].wait_for_death()
        before = other.view.exits[2]

        r.until(lambda: other.view.exits[2] > before + 1000, "the other does not go on")
