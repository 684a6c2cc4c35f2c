"""Shards that attack the VMM over their sockets: contained, while the others go on and the VMM hears signals.

As root, and as an ordinary user on the software CPU, who may have no /dev/kvm.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.conftest import require_soft
from tests.e2e.hostile import Seen
from tests.e2e.ordinary import ROOT, words
from tests.e2e.support import MMIO, NEVER
from tests.guests.build import guest

pytestmark = pytest.mark.timeout(120)

MENDED_S = 5.0
"""A successor takes tens of milliseconds, and more on a busy machine; a VMM that waits for a shard, 30 s."""
CLOSED_S = 4.0
"""A shard that does not listen is killed after 2 s."""
ENDS_IT = {"linger", "nonsense"}
"""For what the VMM ends a shard at once."""
WAYS = ["linger", "go_deaf large", "stopped small"]


def run(way: str, before: tuple[str, ...], cpu: str) -> Seen:
    """What `tests.e2e.hostile` has seen, run with these words before it."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "tests.e2e.hostile", way],
        cwd=ROOT, env={**os.environ, "SHARDIO_CPU": cpu}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return msgspec.convert(json.loads(done.stdout), Seen)


def assert_contained(seen: Seen, way: str) -> None:
    assert seen.spawns == {"good": 2, "bad": 1 + (way in ENDS_IT)}
    assert seen.mended_s < MENDED_S
    assert seen.closed_s < CLOSED_S


@pytest.mark.kvm
@pytest.mark.parametrize("way", WAYS)
def test_a_hostile_shard_holds_up_neither_mending_nor_close(way: str) -> None:
    assert_contained(run(way, (), "kvm"), way)


@pytest.mark.parametrize("way", ["linger", "go_deaf small"])
def test_nor_does_one_of_an_ordinary_user(way: str) -> None:
    require_soft()
    guest("mmio_loop", COUNT=NEVER, WRITE=0)  # built by who may write there
    seen = run(way, words(), "soft")

    assert seen.uid != 0
    assert_contained(seen, way)


@pytest.mark.kvm
@pytest.mark.parametrize(("way", "number"), [("linger", signal.SIGTERM), ("go_deaf", signal.SIGINT)])
def test_the_command_hears_signals_beside_it(tmp_path: Path, way: str, number: signal.Signals) -> None:
    image = tmp_path / "guest.bin"
    image.write_bytes(guest("mmio_loop", COUNT=NEVER, WRITE=0))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = listener.getsockname()[1]
        bad = f"tests.e2e.hostile:Hostile,mmio={MMIO:#x},shard=bad,peer={peer},at_once={way}"
        line = [sys.executable, "-m", "shardio", "run", "--image", image, "--device", bad]
        with subprocess.Popen(
            line, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            try:
                listener.accept()[0].close()
                process.send_signal(number)
                status = process.wait(2 * CLOSED_S)
            finally:
                process.kill()

    assert status == 128 + number
