"""What is in examples/ runs as its README says, in a copy of the folder."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import require_soft
from tests.docs.walkthrough import ROOT, follow

EXAMPLES = ROOT / "examples"
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder that holds the examples, as the root of the repository does."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("alarm", "unicorn_arm")])
def test_example(name: str, copy: Path) -> None:
    assert follow(EXAMPLES / name / "README.md", copy) == []


def test_example_with_unicorn(copy: Path) -> None:
    require_soft()

    assert follow(EXAMPLES / "unicorn_arm" / "README.md", copy) == []


@pytest.mark.machine
def test_example_of_a_machine(cpu: str, copy: Path) -> None:
    assert follow(EXAMPLES / "alarm" / "README.md", copy) == []


def test_each_example_is_in_the_list() -> None:
    listed = re.findall(r"\]\((\w+)/README\.md\)", (EXAMPLES / "README.md").read_text())

    assert sorted(listed) == NAMES
