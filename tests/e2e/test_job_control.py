"""Ctrl-Z: the whole job stops, vCPU workers and shards too, and goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.support import NEVER, PATIENCE_S, until
from tests.guests.build import guest

pytestmark = pytest.mark.machine


def job(group: int) -> dict[int, str]:
    """The processes of a group, with their states (proc(5))."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == group:
                found[int(entry.name)] = fields[0]
    return found


def test_a_job_stops_and_goes_on(tmp_path: Path) -> None:
    image = tmp_path / "guest.bin"
    image.write_bytes(guest("pio_loop", COUNT=NEVER))
    line = [sys.executable, "-m", "shardio", "run", "--quiet", "--image", str(image), "--shards", "1"]
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, process_group=0) as process:
        try:
            until(lambda: len(job(process.pid)) >= 3, "the VMM, a shard and a worker run")
            before = job(process.pid).keys()
            os.killpg(process.pid, signal.SIGTSTP)
            until(lambda: set(job(process.pid).values()) == {"T"}, "all of them stop")
            os.killpg(process.pid, signal.SIGCONT)
            until(lambda: "T" not in job(process.pid).values(), "all of them go on")
            assert before <= job(process.pid).keys()
        finally:
            os.killpg(process.pid, signal.SIGCONT)
            process.terminate()
        assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
