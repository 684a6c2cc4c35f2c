"""Many shards: forked from one interpreter, processes of their own all the same; many ports at them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from shardio import Dispatcher
from shardio.supervisor.template import Sibling, Template
from tests.dispatcher.counter import Counter
from tests.e2e.support import until

BASE, STRIDE, MMIO = 0xD000_0000, 0x1000, 1
VMM = """
import sys
from shardio import Dispatcher
with Dispatcher(vcpus=1, shards=4) as dispatcher:
    dispatcher.start()
    print(*(shard.pid for shard in dispatcher.statistics().shards), flush=True)
    sys.stdin.read()
"""


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def test_each_of_many_shards_is_a_child_and_a_process_of_its_own() -> None:
    with Dispatcher(vcpus=1, shards=4) as d:
        counters = [d.add(Counter, mmio=BASE + n * STRIDE, size=8, shard=f"shard{n}") for n in range(4)]
        d.start()

        found = [counter.call("who") for counter in counters]

        pids = [shard.pid for shard in d.statistics().shards]
        assert [each["pid"] for each in found] == pids
        assert len(set(pids)) == 4
        assert {each["parent"] for each in found} == {os.getpid()}
        assert [each["thread"] for each in found] == pids
        assert [(each["threads"], each["heard"]) for each in found] == [(1, [signal.SIGUSR1])] * 4
        assert all("shardio.shard.template" in command(pid) for pid in pids)


def test_a_shard_that_was_forked_has_a_successor() -> None:
    with Dispatcher(vcpus=1, shards=3) as d:
        d.add(Counter, mmio=BASE, size=8, shard="shard2", policy="replay")
        port = d.port(0)
        before = d.statistics().shards[2].pid

        os.kill(before, signal.SIGKILL)
        until(lambda: d.statistics().shards[2].pid not in (0, before), "there is a successor")
        port.write(MMIO, BASE, 4, 5)

        assert d.statistics().shards[2].spawns == 2
        assert port.read(MMIO, BASE, 4)[1] == 5


def test_shards_start_where_the_template_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    fork = Template.fork

    def die_first(template: Template, fds: Sequence[int]) -> Sibling | None:
        template._process.kill()
        return fork(template, fds)

    monkeypatch.setattr(Template, "fork", die_first)
    with Dispatcher(vcpus=1, shards=3) as d:
        d.add(Counter, mmio=BASE, size=8)
        port = d.port(0)

        port.write(MMIO, BASE, 4, 5)

        assert port.read(MMIO, BASE, 4)[1] == 5
        assert "shardio.shard.process" in command(d.statistics().shards[0].pid)


def test_no_forked_shard_outlives_a_vmm_that_is_killed() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    line = [sys.executable, "-c", VMM]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as vmm:
        assert vmm.stdout is not None
        pidfds = [os.pidfd_open(int(pid)) for pid in vmm.stdout.readline().split()]
        vmm.kill()

        ended = [bool(select.select([pidfd], [], [], 10.0)[0]) for pidfd in pidfds]

    for pidfd in pidfds:
        os.close(pidfd)
    assert ended == [True] * 4


def test_128_ports_reach_16_shards_in_both_directions() -> None:
    with Dispatcher(vcpus=128, shards=16) as d:
        for n in range(16):
            d.add(Counter, mmio=BASE + n * STRIDE, size=8, shard=f"shard{n}", name=f"counter{n}")
        ports = [d.port(vcpu) for vcpu in range(128)]

        for vcpu, port in enumerate(ports):
            port.write(MMIO, BASE + vcpu % 16 * STRIDE, 4, 1)
        for n in range(16):
            ports[127 - n].read(MMIO, BASE + n * STRIDE, 4)

        until(lambda: all(device.writes == 8 for device in d.statistics().devices), "counted")
        assert {(device.reads, device.refused) for device in d.statistics().devices} == {(1, 0)}
        for port in ports:
            port.close()
