"""Where the system call membarrier is refused: the fabric works with fences of its own, and a process that
cannot take part in a fabric that counts on it is told so. Each case in a process of its own, behind a filter.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PREAMBLE = """
from shardio import FabricError, Machine
from shardio.fabric import Port, Fabric, Owner
from shardio.routing import quiesce
from tests.fabric.support import BASE, MMIO, PATIENCE_S, Bench, Log
from tests.seccomp import deny
"""
REFUSED = "; allow the system call membarrier (seccomp filters), as whoever made the fabric is allowed it"


def in_a_process(code: str) -> list[str]:
    """The lines that the program prints; it must end well."""
    result = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


USE = """
    deny("membarrier")
    with Fabric.create(vcpus=1, shards=1, ranges=8, posted_slots=8) as fabric:
        print(bool(fabric.view.membarrier))
        b = Bench(fabric)
        with b.stack:
            device = Log()
            owner, route, client = b.connect(device, posted=True)
            with b.serving(owner):
                for value in range(2000):
                    client.write(MMIO, BASE, 4, value)
                    if value % 100 == 0:
                        b.map.publish()
                        quiesce([client.view], PATIENCE_S)
                client.read(MMIO, BASE, 4)
            lost = fabric.vcpu_counters(0).lost_wakeups, fabric.shard_counters(0).lost_wakeups
        print([value for _, _, value in device.seen[:-1]] == list(range(2000)), *lost)
"""


def test_a_fabric_made_without_membarrier_keeps_order_and_wakes() -> None:
    assert in_a_process(USE) == ["False", "True 0 0"]


LATER = """
    fabric = Fabric.create(vcpus=2, shards=1, ranges=8, posted_slots=8)
    client = Port(fabric, 0)
    assert client.view  # the port is this process's now
    deny("membarrier")
    for use in (
        lambda: Port(fabric, 1), lambda: Owner(fabric, 0), lambda: quiesce([client.view], PATIENCE_S),
    ):
        try:
            use()
        except FabricError as error:
            print(error)
"""


def test_who_cannot_take_part_in_a_fabric_with_membarrier_is_told() -> None:
    assert in_a_process(LATER) == [
        f"this process cannot be registered for membarrier: Operation not permitted{REFUSED}",
        f"cannot own shard 0: Operation not supported{REFUSED}",
        f"other processes cannot be fenced with membarrier: Operation not permitted{REFUSED}",
    ]


GUEST = """
    from tests.e2e.support import MMIO, add_exit_port, until
    from tests.guests.build import guest

    deny("membarrier")
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("doorbells", COUNT=5000))
        device = vm.add("tests.e2e.irq_devices:Tally", mmio=MMIO, posted=True, shard="one")
        add_exit_port(vm, shard="two")
        vm.start()
        ended = vm.wait(PATIENCE_S)
        until(lambda: device.call("counts")[0] == 5000, "every write has arrived")
        print(ended.reason, vm.statistics().vcpus[0].lost_wakeups)
"""


@pytest.mark.kvm
def test_a_guest_runs_without_membarrier() -> None:
    assert in_a_process(GUEST) == ["exit 0"]
