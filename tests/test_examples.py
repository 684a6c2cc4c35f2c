"""What is in examples/ runs as it stands, and says what it should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import require_soft

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = {
    "processes": ["8000 8000 of 8000", "left: 1 processes right: 2 processes"],
    "unicorn_arm": ["r2 = 6", "printed: hi"],
    "fuzzer": ["'ABORTED': 0", "shard started 1 time(s)"],
}


def output(name: str) -> str:
    """What the example prints on standard output; it must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, str(ROOT / "examples" / f"{name}.py")]
    return subprocess.run(
        line, env=environment, capture_output=True, text=True, check=True, timeout=55
    ).stdout  # fmt: skip


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "unicorn_arm"])
def test_example(name: str) -> None:
    printed = output(name)

    assert [text for text in EXAMPLES[name] if text not in printed] == []


def test_example_with_unicorn() -> None:
    require_soft()
    printed = output("unicorn_arm")

    assert [text for text in EXAMPLES["unicorn_arm"] if text not in printed] == []


def test_each_example_is_tested() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)
