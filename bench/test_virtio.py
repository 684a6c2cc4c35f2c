"""virtio round trips of a real guest: doorbell or plain exit there, interrupt or polled ring back.

A guest makes requests back to back and counts them; its count is looked at over windows of time. A figure is
the median of the windows' means, in microseconds a request.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shardio import Machine
from shardio.bench.guests import MMIO, NEVER, add_exit_port, guest, result
from shardio.errors import HostError, KvmError

PATIENCE_S = 60.0
WINDOWS = 9
WINDOW_S = 0.1
LINE = 5
DEVICES = {
    ("entropy", "doorbell"): "shardio.devices.virtio:VirtioMmioRng",
    ("entropy", "plain exit"): "shardio.bench.plain_virtio:PlainRng",
    ("block", "doorbell"): "shardio.devices.virtio:VirtioMmioBlock",
    ("block", "plain exit"): "shardio.bench.plain_virtio:PlainBlock",
}


@contextmanager
def running(kind: str, notify: str, irq: int, image: Path) -> Iterator[Machine]:
    """A machine whose guest makes requests of `kind`: 32 bytes of entropy, or 4 KiB of a disk on each of two
    queues at a time.
    """
    options: dict[str, Any] = {}
    if kind == "block":
        options = {"path": str(image), "queues": 2}
        program = guest("virtio_block", IRQ=irq, STEPS=1, PIECE=4096)
    else:
        program = guest("virtio_rng", IRQ=irq, COUNT=NEVER)
    try:
        made = Machine(memory="128M", shards=1, hang_deadline=PATIENCE_S)
    except (HostError, KvmError) as error:
        pytest.skip(str(error))
    with made as vm:
        vm.load(program)
        vm.add(DEVICES[kind, notify], mmio=MMIO, irq=LINE, shard="virtio", **options)
        add_exit_port(vm, shard="virtio")
        vm.start()
        deadline = time.monotonic() + PATIENCE_S
        while result(vm, 4) == 0:
            assert time.monotonic() < deadline, "the guest makes no requests"
        yield vm


def round_trips(vm: Machine) -> list[float]:
    """Microseconds a request, of each window."""
    found = []
    for _ in range(WINDOWS):
        count, begin = result(vm, 4), time.perf_counter()
        time.sleep(WINDOW_S)
        found.append(1e6 * (time.perf_counter() - begin) / (result(vm, 4) - count))
    return found


@pytest.mark.parametrize("back", ["interrupt", "polled ring"])
@pytest.mark.parametrize("notify", ["doorbell", "plain exit"])
@pytest.mark.parametrize("kind", ["entropy", "block"])
def test_round_trip(benchmark: Any, tmp_path: Path, kind: str, notify: str, back: str) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bytes(64 << 20))
    with running(kind, notify, LINE if back == "interrupt" else 0, image) as vm:
        windows = benchmark.pedantic(lambda: round_trips(vm), rounds=1, iterations=1)
        exits = vm.statistics().vcpus[0].exits["MMIO"] / result(vm, 4)

    benchmark.extra_info["virtio"] = {
        "device": kind,
        "notified by": notify,
        "completed by": back,
        "us": statistics.median(windows),
        "us, windows": windows,
        "exits a request": exits,
    }
    assert statistics.median(windows) > 1
