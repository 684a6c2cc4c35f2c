"""virtio-blk against QEMU's: both sides make requests that end well. None is judged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from shardio.bench.peers.qemu import PROGRAM
from shardio.bench.virtio import DISK, LOADS, Guest, ours, qemu, window

pytestmark = pytest.mark.kvm

Side = Callable[[Path, dict[str, int]], AbstractContextManager[Guest]]
with_qemu = pytest.mark.skipif(shutil.which(PROGRAM) is None, reason=f"{PROGRAM} is not installed")


@pytest.mark.parametrize("side", [ours, pytest.param(qemu, marks=with_qemu)], ids=["ours", "qemu"])
@pytest.mark.parametrize("load", ["4 KiB random read", "4 KiB random write"])
def test_a_guest_makes_requests(tmp_path: Path, side: Side, load: str) -> None:
    (tmp_path / "disk").write_bytes(bytes(DISK))

    with side(tmp_path / "disk", LOADS[load]) as machine:
        found = window(machine)

    assert found.rate > 0
