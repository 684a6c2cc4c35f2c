"""`shardio run --profile`."""

from __future__ import annotations

import pstats
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.machine

HELLO = bytes.fromhex("ba f8 03 b0 68 ee b0 69 ee b0 00 e6 f4")
"""mov dx, 0x3F8; "h" and "i" to it; 0 to the exit port."""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "guest.bin").write_bytes(HELLO)
    line = [sys.executable, "-m", "shardio", "run", "--image", "guest.bin", "--quiet", "--no-irqchip", *words]
    return subprocess.run(
        line, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("words", [(), ("--profile-file", "here")], ids=["default", "named"])
def test_the_file_has_the_handlers_of_the_device(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run(tmp_path, "--profile", "exit", *words)
    file = words[1] if words else "exit.pstats"
    stats: Any = pstats.Stats(str(tmp_path / file))
    called = {name for path, _, name in stats.stats if path.endswith("exit_port.py")}
    assert "write" in called
    assert f"shardio: profile of exit: python -m pstats {file}\n" in done.stderr
    assert done.returncode == 1  # what the exit port makes of 0


def test_a_device_that_is_not_there_and_a_file_without_a_device(tmp_path: Path) -> None:
    unknown = run(tmp_path, "--profile", "nobody")
    alone = run(tmp_path, "--profile-file", "here")
    assert (unknown.returncode, alone.returncode) == (2, 2)
    assert "there is no device 'nobody' (known are com1, exit)" in unknown.stderr
    assert "--profile-file without --profile (say which device: --profile NAME)" in alone.stderr
