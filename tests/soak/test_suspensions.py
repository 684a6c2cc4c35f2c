"""Any process of a machine is stopped and goes on, its VMM and all at once too: nobody dies of it.

The machine is another process's, so that its VMM can be stopped; it tells its figures when it is sent a line.
A shard that is stopped alone for longer than the hang deadline hangs, as far as a guest can see: it is
stopped for less.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import until

ROOT = Path(__file__).resolve().parent.parent.parent
DEADLINE_S = 0.3
STEPS = 40
SOAK_STEPS = 1000

VMM = f"""
import json, sys
from shardio import Machine
from tests.e2e.devices import Sequencer

def main():
    with Machine(memory="2M", vcpus=2, shards=2, hang_deadline={DEADLINE_S}) as vm:
        vm.add(Sequencer, pio=0x1000, size=1, shard="shard0")
        vm.add(Sequencer, pio=0x1001, size=1, shard="shard1")
        # mov dx, 0x1000; again: in al, dx; xor dl, 1; jmp again
        vm.load(b"\\xba\\x00\\x10\\xec\\x80\\xf2\\x01\\xeb\\xfa", at=0x1000)
        vm.start()
        for _ in sys.stdin:
            found = vm.statistics()
            print(json.dumps({{
                "workers": [vcpu.pid for vcpu in found.vcpus],
                "shards": [shard.pid for shard in found.shards],
                "served": [shard.served for shard in found.shards],
                "refused": [device.refused for device in found.devices],
            }}), flush=True)

if __name__ == "__main__":
    main()
"""


class Vmm:
    """The other process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def figures(self) -> dict[str, Any]:
        """What it has to tell now."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told


@contextmanager
def vmm(folder: Path) -> Iterator[Vmm]:
    """A machine that runs for as long as the context."""
    script = folder / "vmm.py"
    script.write_text(VMM)
    command, environment = [sys.executable, str(script)], {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield Vmm(process)
        except BaseException:
            process.kill()
            raise


def suspend(chance: random.Random, machine: Vmm, first: dict[str, Any]) -> None:
    """One stop of one process or of all, for up to three hang deadlines; the guest goes on after it."""
    everyone = [machine.pid, *first["workers"], *first["shards"]]
    pids = chance.choice([[pid] for pid in everyone] + [everyone])
    most = 1 / 3 if pids[0] in first["shards"] else chance.choice((0.1, 1.0, 3.0))
    end = time.monotonic() + most * DEADLINE_S * chance.random()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    until(lambda: time.monotonic() > end, "the time has passed")
    chance.shuffle(pids)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    before = machine.figures()["served"]
    until(lambda: all(map(int.__gt__, machine.figures()["served"], before)), "it goes on")


def suspend_again_and_again(folder: Path, steps: int, seed: int) -> None:
    chance = random.Random(seed)
    with vmm(folder) as machine:
        until(lambda: min(machine.figures()["served"]) > 100, "the guest runs")
        first = machine.figures()

        for _ in range(steps):
            suspend(chance, machine, first)

        last = machine.figures()
    assert (last["workers"], last["shards"]) == (first["workers"], first["shards"])
    assert not any(last["refused"])
    assert machine.process.returncode == 0


@pytest.mark.machine
@pytest.mark.timeout(180)
def test_some_suspensions_of_anybody(tmp_path: Path) -> None:
    suspend_again_and_again(tmp_path, STEPS, 0x5709)


@pytest.mark.kvm
@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_thousand_suspensions_of_anybody(tmp_path: Path) -> None:
    suspend_again_and_again(tmp_path, SOAK_STEPS, time.time_ns() & 0xFFFF_FFFF)
