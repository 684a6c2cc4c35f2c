"""Interrupt controllers that are devices, and SIGKILLs of what serves them: no interrupt is lost."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable

import pytest

from shardio import Machine
from tests.e2e.board import BOARD, board_machine
from tests.e2e.support import MMIO, result, until, wait_while_it_moves
from tests.guests.build import guest

pytestmark = pytest.mark.kvm

PIC, IOAPIC_EDGE, IOAPIC_LEVEL, MESSAGE = range(4)
PROMPT = "tests.e2e.irq_devices:Prompt"
MODES = [(PIC, 5, "edge"), (PIC, 5, "level"), (IOAPIC_EDGE, 20, "edge"), (IOAPIC_LEVEL, 10, "level")]
ACCESSES = 800
KILLS_A_SHARD = 4
"""One more within 10 s, and the shard would be given up."""


def kill(pid: int) -> None:
    """SIGKILL, unless somebody was faster."""
    if pid:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def run_while(vm: Machine, kills: Callable[[threading.Event], None]) -> None:
    """Runs to the guest's end while another thread kills; the guest must leave by its exit port. How long
    that takes is the host's affair: an interrupt is lost where the guest does not go on.
    """
    done = threading.Event()
    vm.start()
    killer = threading.Thread(target=kills, args=(done,))
    killer.start()
    try:
        ended = wait_while_it_moves(vm, lambda: [result(vm, at) for at in (4, 8, 12)])
    finally:
        done.set()
        killer.join()
        vm.stop()
    assert ended is not None, "the guest waits for an interrupt that was lost"
    assert (ended.reason, ended.status) == ("exit", 0), ended


@pytest.mark.parametrize(("mode", "line", "irq_mode"), MODES)
def test_killed_workers_lose_no_interrupt(mode: int, line: int, irq_mode: str) -> None:
    """A worker is killed while it serves accesses, wires, INTA cycles and EOIs; one more goes on."""

    def kills(done: threading.Event) -> None:
        chance, seen = random.Random(mode), -1
        while not done.wait(0.005 * chance.random()):
            # On a busy host a worker that is killed before it has done anything would never get anywhere.
            seen, before = result(vm, 12), seen
            kill(vm.statistics().vcpus[0].pid if seen != before else 0)

    with board_machine() as vm:
        vm.load(guest("irq_order", MODE=mode, IRQ=line, COUNT=ACCESSES))
        vm.add(PROMPT, mmio=MMIO, irq=line, irq_mode=irq_mode, shard="one")

        run_while(vm, kills)

        missing, interrupts, accesses = result(vm, 4), result(vm, 8), result(vm, 12)
        spawns = vm.statistics().vcpus[0].spawns
    assert (missing, accesses) == (0, ACCESSES)
    assert interrupts >= ACCESSES
    assert spawns > 5


@pytest.mark.parametrize(("mode", "line", "irq_mode"), MODES)
def test_controllers_that_are_killed_come_back_as_they_were(mode: int, line: int, irq_mode: str) -> None:
    """The guest programs them once; each successor has masks, vectors, and what is pending."""

    def kills(done: threading.Event) -> None:
        for n in range(KILLS_A_SHARD):
            so_far = (n + 1) * ACCESSES // (KILLS_A_SHARD + 2)
            until(lambda so_far=so_far: done.is_set() or result(vm, 12) > so_far, "it goes on")
            kill(next(shard.pid for shard in vm.statistics().shards if shard.name == BOARD))

    with board_machine() as vm:
        vm.load(guest("irq_order", MODE=mode, IRQ=line, COUNT=ACCESSES))
        vm.add(PROMPT, mmio=MMIO, irq=line, irq_mode=irq_mode, shard="one")

        run_while(vm, kills)

        missing, interrupts, accesses = result(vm, 4), result(vm, 8), result(vm, 12)
        spawns = next(shard.spawns for shard in vm.statistics().shards if shard.name == BOARD)
    assert (missing, accesses) == (0, ACCESSES)
    assert interrupts >= ACCESSES
    assert spawns == 1 + KILLS_A_SHARD


def test_a_timer_that_is_killed_goes_on_ticking() -> None:
    with board_machine() as vm:
        vm.load(guest("pit", COUNT=300))
        vm.add("shardio.devices:Pit", irq=0, shard="timer")

        def kills(done: threading.Event) -> None:
            for n in range(KILLS_A_SHARD):
                until(lambda n=n: done.is_set() or result(vm, 4) > 30 * n, "it ticks")
                kill(next(shard.pid for shard in vm.statistics().shards if shard.name == "timer"))

        run_while(vm, kills)

        ticks = result(vm, 4)
    assert ticks == 300
