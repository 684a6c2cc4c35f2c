"""Processes of a machine by their names, as ps and top show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.support import NEVER, machine, until
from tests.guests.build import guest

pytestmark = pytest.mark.machine


def name(pid: int) -> str:
    """PR_GET_NAME of a process."""
    return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")


def test_each_process_has_a_name() -> None:
    with machine(vcpus=2, shards=["counters", "disk"]) as vm:
        vm.load(guest("pio_loop", COUNT=NEVER))
        vm.start()
        processes = vm.statistics()
        for number, vcpu in enumerate(processes.vcpus):
            until(lambda vcpu=vcpu, number=number: name(vcpu.pid) == f"shardio:vcpu:{number}", "its name")  # type: ignore[misc]
        for shard in processes.shards:
            until(lambda shard=shard: name(shard.pid) == f"shardio:{shard.name}"[:15], "its name")  # type: ignore[misc]
