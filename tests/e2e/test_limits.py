"""A host that gives too little: one line that names the cure, status 2, and nothing left behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.kvm


@pytest.mark.parametrize("limit", range(10, 30, 3))
def test_too_few_descriptors_at_whatever_step(limit: int) -> None:
    command = [sys.executable, "-m", "shardio", "demo", "--count", "10"]
    done = subprocess.run(
        ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("shardio: error: ")
    assert done.stderr.count("\n") == 1
    assert "open files" in done.stderr
