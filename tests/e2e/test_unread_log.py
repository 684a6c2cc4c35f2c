"""Standard error that nobody reads, a terminal that is held say: no shard and no VMM waits for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.e2e.ordinary import ROOT
from tests.e2e.support import PATIENCE_S, read_until

pytestmark = [pytest.mark.machine, pytest.mark.timeout(120)]

ACCESSES = 400
"""Lines of a thousand characters: more than a pipe and the lines that wait have room for."""
SCRIPT = f"""
import json, os, signal
from shardio import Machine
from tests.e2e.support import MMIO, add_exit_port, until
from tests.guests.build import guest

with Machine(memory="2M", shards=2, hang_deadline=2.0) as vm:
    vm.load(guest("mmio_loop", COUNT={ACCESSES}, WRITE=1))
    vm.add("tests.e2e.devices:Talkative", mmio=MMIO, shard="talkative", policy="replay")
    add_exit_port(vm, shard="other")
    vm.start()
    ended = vm.wait({PATIENCE_S})
    os.kill(vm.statistics().shards[1].pid, signal.SIGKILL)
    until(lambda: vm.statistics().shards[1].spawns == 2, "a successor, of whose death a line is logged")
    seen = [shard.spawns for shard in vm.statistics().shards[:2]], ended.reason
    vm.stop()
print(json.dumps(seen), flush=True)
"""


def test_a_shard_and_its_vmm_go_on() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            seen = read_until(process.stdout.fileno(), b"\n")
            log = os.read(process.stderr.fileno(), 1 << 20)
        finally:
            process.kill()

    assert json.loads(seen) == [[1, 2], "exit"]
    assert log.count(b"talkative") < ACCESSES
