"""virtio round trips of a real guest: doorbell or plain exit there, interrupt or polled ring back.

A guest makes requests back to back and counts them; its count is looked at over windows of time. A figure is
the median of the windows' means, in microseconds a request.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from shardio import Machine
from shardio.bench.guests import MMIO, NEVER, add_exit_port, guest, result
from shardio.errors import HostError, KvmError

PATIENCE_S = 60.0
WINDOWS, WINDOW_S = 9, 0.1
LINE = 5
DEVICES = {"doorbell": "shardio.devices.virtio:VirtioMmio", "plain exit": "shardio.bench.plain_virtio:Plain"}


@pytest.mark.parametrize("back", ["interrupt", "polled ring"])
@pytest.mark.parametrize("notify", DEVICES)
@pytest.mark.parametrize("kind", ["Rng", "Block"])
def test_round_trip(benchmark: Any, tmp_path: Path, kind: str, notify: str, back: str) -> None:
    """32 bytes of entropy, or 4 KiB of a disk on each of two queues at a time."""
    irq = LINE if back == "interrupt" else 0
    program, options = guest("virtio_rng", IRQ=irq, COUNT=NEVER), dict[str, Any]()
    if kind == "Block":
        (tmp_path / "disk").write_bytes(bytes(64 << 20))
        program = guest("virtio_block", IRQ=irq, STEPS=1, PIECE=4096)
        options = {"path": str(tmp_path / "disk"), "queues": 2}
    try:
        made = Machine(memory="128M", shards=1, hang_deadline=PATIENCE_S)
    except (HostError, KvmError) as error:
        pytest.skip(str(error))
    with made as vm:
        vm.load(program)
        vm.add(DEVICES[notify] + kind, mmio=MMIO, irq=LINE, shard="virtio", **options)
        add_exit_port(vm, shard="virtio")
        vm.start()
        deadline = time.monotonic() + PATIENCE_S
        while result(vm, 4) == 0:
            assert time.monotonic() < deadline, "the guest makes no requests"

        def window() -> float:
            count, begin = result(vm, 4), time.perf_counter()
            time.sleep(WINDOW_S)
            return 1e6 * (time.perf_counter() - begin) / (result(vm, 4) - count)

        windows = benchmark.pedantic(lambda: [window() for _ in range(WINDOWS)], rounds=1, iterations=1)
        exits = vm.statistics().vcpus[0].exits["MMIO"] / result(vm, 4)

    benchmark.extra_info["us a request"] = statistics.median(windows)
    benchmark.extra_info["windows"], benchmark.extra_info["exits a request"] = windows, exits
    assert statistics.median(windows) > 1
