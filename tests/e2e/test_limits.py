"""A host that gives too little: one line that says what to do, status 2, and nothing left behind."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from shardio import ShardioError
from shardio.devices import Counter
from shardio.dispatcher import ExitInfo
from tests.e2e.support import MMIO, PATIENCE_S, add_exit_port, machine
from tests.guests.build import guest

pytestmark = pytest.mark.machine

IMAGE = guest("hello", EXIT_CODE=7)
ENDED = ExitInfo("exit", status=7)
ROOM = 1024
STEPS = {"kvm": range(35), "soft": range(60, 110)}
"""Descriptors beyond those that are open; the machine below needs fewer than the last. The doorbells of the
software CPU alone take 64, in one step.
"""
NAMES_THE_LIMIT = re.compile(r"ulimit .*-n|descriptors")


@contextmanager
def no_gaps() -> Iterator[int]:
    """Every number is taken below the one that this gives, and none from there on."""
    with ExitStack() as taken:
        last = max(map(int, os.listdir("/proc/self/fd")))
        while (fd := os.open(os.devnull, os.O_RDONLY)) < last:
            taken.callback(os.close, fd)
        os.close(fd)
        yield fd


@contextmanager
def open_files(limit: int) -> Iterator[None]:
    """This process has no more than `limit` descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def outcome(limit: int) -> ExitInfo | ShardioError | None:
    """How a machine ends with so few descriptors."""
    with open_files(limit):
        try:
            with machine(shards=1) as vm:
                vm.load(IMAGE)
                add_exit_port(vm)
                vm.add(Counter, mmio=MMIO, size=0x1000, posted="coalesced")
                vm.add("shardio.devices:CmosRtc", pio=0x70, irq=8)
                vm.start()
                return vm.wait(PATIENCE_S)
        except ShardioError as error:
            return error


@pytest.mark.parametrize("limit", range(10, 30, 3))
def test_too_few_descriptors_at_whatever_step(limit: int) -> None:
    command = [sys.executable, "-m", "shardio", "demo", "--count", "10"]
    done = subprocess.run(
        ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("shardio: error: ")
    assert done.stderr.count("\n") == 1
    assert "open files" in done.stderr


def test_a_program_with_too_few_descriptors_gets_its_own_back_at_whatever_step(cpu: str) -> None:
    steps = STEPS[cpu]
    assert outcome(ROOM) == ENDED  # what is imported or opened once is
    with no_gaps() as first:
        before = os.listdir("/proc/self/fd")
        outcomes = [outcome(first + more) for more in steps]
        after = os.listdir("/proc/self/fd")

    assert after == before
    errors = [found for found in outcomes if isinstance(found, ShardioError)]
    assert [str(error) for error in errors if not NAMES_THE_LIMIT.search(error.hint)] == []
    assert outcomes[len(errors) :] == [ENDED] * (len(steps) - len(errors))
    assert 15 < len(errors) < len(steps)
