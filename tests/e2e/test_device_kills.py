"""A BIOS whose devices are killed on the way: it says what it says without that, each line once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from shardio import Machine
from tests.e2e.support import console, read_until
from tests.e2e.test_firmware import BIOS, LAST_LINE, MEMORY, add_platform, found_in_order, milestones

pytestmark = [
    pytest.mark.machine,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not BIOS.exists(), reason=f"{BIOS} is missing: apt-get install seabios"),
]

KILLS = (
    (b"qemu/e820: addr", "debugcon"),
    (b"=== PCI device probing ===", "pci"),
    (b"Found 1 serial ports", "com1"),
    (b"All threads complete.", "rtc"),
)
"""When the log has come so far, the shard with this device is killed."""


def test_each_device_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    with console(tmp_path / "debug") as log, Machine(memory=MEMORY, shards=2) as vm:
        vm.load_firmware(BIOS)
        add_platform(vm, 1, tmp_path / "debug")
        vm.start()
        held = os.open(tmp_path / "debug", os.O_WRONLY)  # without a writer it would be at its end
        text = b""
        for line, device in KILLS:
            text += read_until(log, line) if line not in text else b""
            statistics = vm.statistics()
            shard = next(each.shard for each in statistics.devices if each.name == device)
            os.kill(next(each.pid for each in statistics.shards if each.name == shard), signal.SIGKILL)
        text += read_until(log, LAST_LINE)
        vm.stop()
        os.close(held)
        deaths = sum(shard.spawns - 1 for shard in vm.statistics().shards)

    assert deaths == len(KILLS)
    said = text.decode()
    assert found_in_order(said, milestones(1, acpi=False)) == milestones(1, acpi=False)
    assert all(said.count(line) == 1 for line in milestones(1, acpi=False)[2:-2])
